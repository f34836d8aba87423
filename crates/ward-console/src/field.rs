//! One labelled field of a form, with its hint and its problem, tied together for screen readers.

use askama::Template;

use crate::form::Form;

#[derive(Template)]
#[template(path = "field.html")]
pub struct Field {
    kind: &'static str,
    name: String,
    label: String,
    hint: String,
    value: String,
    error: String,
    options: Vec<(String, String)>,
    required: bool,
    checked: bool,
    mono: bool,
}

impl Field {
    fn new(form: &Form, kind: &'static str, name: &str, label: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            label: label.to_owned(),
            hint: String::new(),
            value: form.value(name).to_owned(),
            error: form.error(name),
            options: Vec::new(),
            required: false,
            checked: false,
            mono: false,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.hint);
        self
    }

    /// The field cannot be left empty.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Shows the value in fixed-width letters, because every letter counts.
    #[must_use]
    pub fn mono(mut self) -> Self {
        self.mono = true;
        self
    }

    fn is_chosen(&self, option: &str) -> bool {
        option == self.value
    }

    fn described(&self) -> String {
        let mut ids = Vec::new();
        if !self.hint.is_empty() {
            ids.push(format!("f-{}-hint", self.name));
        }
        if !self.error.is_empty() {
            ids.push(format!("f-{}-error", self.name));
        }
        ids.join(" ")
    }
}

/// The fields as templates call them.
impl Form {
    pub fn text(&self, name: &str, label: &str) -> Field {
        Field::new(self, "text", name, label)
    }

    /// A secret. It is never shown again, so a form with a problem asks for it a second time.
    pub fn secret(&self, name: &str, label: &str) -> Field {
        Field { value: String::new(), mono: true, ..Field::new(self, "password", name, label) }
    }

    /// A secret of several lines, such as a private key.
    pub fn secret_area(&self, name: &str, label: &str) -> Field {
        Field { value: String::new(), mono: true, ..Field::new(self, "textarea", name, label) }
    }

    pub fn number(&self, name: &str, label: &str) -> Field {
        Field::new(self, "number", name, label)
    }

    pub fn date(&self, name: &str, label: &str) -> Field {
        Field::new(self, "date", name, label)
    }

    pub fn area(&self, name: &str, label: &str) -> Field {
        Field::new(self, "textarea", name, label)
    }

    /// A choice between values that are their own labels.
    pub fn choice<S: AsRef<str>>(&self, name: &str, label: &str, values: &[S]) -> Field {
        let options = values.iter().map(|value| (value.as_ref().to_owned(), value.as_ref().to_owned()));
        Field { options: options.collect(), ..Field::new(self, "select", name, label) }
    }

    /// A choice between values with labels.
    pub fn labelled_choice<V: AsRef<str>, L: AsRef<str>>(
        &self,
        name: &str,
        label: &str,
        values: &[(V, L)],
    ) -> Field {
        let options =
            values.iter().map(|(value, label)| (value.as_ref().to_owned(), label.as_ref().to_owned()));
        Field { options: options.collect(), ..Field::new(self, "select", name, label) }
    }

    /// A box to tick, whose value is `yes`.
    pub fn tick(&self, name: &str, label: &str) -> Field {
        let checked = self.has(name, "yes");
        Field { checked, ..Field::new(self, "checkbox", name, label) }
    }

    /// The hidden fields of every form that writes.
    pub fn hidden(&self) -> HiddenFields<'_> {
        HiddenFields { csrf: &self.csrf, repeat: &self.repeat }
    }
}

#[derive(Template)]
#[template(
    source = "<input type=\"hidden\" name=\"csrf\" value=\"{{ csrf }}\"><input type=\"hidden\" name=\"repeat\" value=\"{{ repeat }}\">",
    ext = "html"
)]
pub struct HiddenFields<'f> {
    csrf: &'f str,
    repeat: &'f str,
}
