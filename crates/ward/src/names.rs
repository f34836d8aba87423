//! Enums whose variants have names. An enum derives its names from strum; [`named!`] adds the uses of a name.

/// For enums that derive `EnumString`, `IntoStaticStr` and `VariantArray` of strum.
macro_rules! named {
    ($($type:ty),+ $(,)?) => {$(
        impl $type {
            /// Every variant, in the declared order.
            pub const ALL: [Self; <Self as strum::VariantArray>::VARIANTS.len()] =
                *<Self as strum::VariantArray>::VARIANTS.as_array().expect("the length is that of the list");

            /// The name in the database, in answers and on the command line.
            pub fn name(self) -> &'static str {
                self.into()
            }

            /// The variant of this name; `None` for an unknown name.
            pub fn named(name: &str) -> Option<Self> {
                name.parse().ok()
            }
        }

        impl ward_db::FromColumn for $type {
            fn from_column(row: &ward_db::Row<'_>, index: usize) -> Result<Self, ward_db::Error> {
                let unknown = concat!("an unknown name of a ", stringify!($type));
                Self::named(row.text(index)?).ok_or_else(|| ward_db::Error::unreadable(unknown))
            }
        }

        impl From<$type> for ward_db::Value<'_> {
            fn from(variant: $type) -> Self {
                Self::Text(variant.name())
            }
        }
    )+};
}

pub(crate) use named;
