"use strict";
// Content of the document is inserted as text, never as markup.
const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
};
const byId = (id) => document.getElementById(id);
const VERBS = ["get", "post", "put", "patch", "delete"];

// The Markdown that the document uses: `code`, **strong**, headings, numbered lists, paragraphs.
const inline = (text) => text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
  if (part.length > 2 && part.startsWith("`")) return el("code", {}, part.slice(1, -1));
  if (part.length > 4 && part.startsWith("**")) return el("strong", {}, part.slice(2, -2));
  return part;
});
const prose = (text) => text.trim().split(/\n{2,}/).map((block) => {
  if (block.startsWith("## ")) return el("h2", {}, inline(block.slice(3)));
  if (/^\d+\. /.test(block)) return el("ol", {}, block.split("\n").map((line) => el("li", {}, inline(line.replace(/^\d+\. /, "")))));
  return el("p", {}, inline(block.replace(/\n/g, " ")));
});

const start = (api) => {
  const target = (ref) => ref.slice(2).split("/").reduce((at, key) => at[key.replace(/~1/g, "/").replace(/~0/g, "~")], api);
  // A parameter or a response may be a reference in the document.
  const deref = (part) => (part.$ref ? { ...target(part.$ref), ...part } : part);
  // A reference is shown as its target. Fields beside the reference add to the target.
  const resolve = (schema) => {
    let resolved = schema, name = "";
    while (resolved.$ref) {
      const { $ref, ...beside } = resolved;
      name = $ref.split("/").pop();
      resolved = { ...target($ref), ...beside };
    }
    const rest = (resolved.anyOf || []).filter((one) => one.type !== "null");
    if (resolved.anyOf && rest.length === 1) {
      const { anyOf, ...beside } = resolved;
      const inner = resolve(rest[0]);
      return { ...inner, schema: { ...inner.schema, ...beside }, nullable: anyOf.length > 1 || inner.nullable };
    }
    return { schema: resolved, name, nullable: false };
  };
  const kind = (given) => {
    const { schema, nullable } = resolve(given);
    let words = schema.type || (schema.anyOf ? schema.anyOf.map(kind).join(" or ") : "anything");
    if (schema.type === "array") words = "list of " + (schema.items ? kind(schema.items) : "anything");
    else if (schema.type === "object" && schema.additionalProperties) words = "object of " + (schema.additionalProperties === true ? "anything" : kind(schema.additionalProperties));
    else if (schema.format) words = { "date-time": "time", uuid: "UUID", date: "day" }[schema.format] || schema.format;
    else if (schema.type === "string") words = "text";
    else if (schema.type === "integer") words = "whole number";
    else if (schema.type === "boolean") words = "true or false";
    return words + (nullable ? " or null" : "");
  };
  const bounds = (schema) => {
    const said = [];
    if (schema.const !== undefined) said.push("always " + JSON.stringify(schema.const));
    if (schema.enum) said.push("one of " + schema.enum.join(", "));
    if (schema.minLength !== undefined || schema.maxLength !== undefined) {
      said.push(schema.maxLength === undefined ? (schema.minLength === 1 ? "not empty" : "at least " + schema.minLength + " characters") : (schema.minLength || 0) + " to " + schema.maxLength + " characters");
    }
    if (schema["x-trim"]) said.push("surrounding white space is dropped");
    if (schema.pattern) said.push("matches " + schema.pattern);
    if (schema.minimum !== undefined) said.push("at least " + schema.minimum);
    if (schema.exclusiveMinimum !== undefined) said.push("more than " + schema.exclusiveMinimum);
    if (schema.maximum !== undefined) said.push("at most " + schema.maximum);
    if (schema.exclusiveMaximum !== undefined) said.push("less than " + schema.exclusiveMaximum);
    if (schema.minItems !== undefined) said.push("at least " + schema.minItems + " items");
    if (schema.maxItems !== undefined) said.push("at most " + schema.maxItems + " items");
    if (schema.default !== undefined) said.push("default " + JSON.stringify(schema.default));
    if (schema["x-secret"]) said.push("secret: shown once, never logged or echoed");
    return said;
  };
  const inside = (given, seen) => {
    const { schema, name } = resolve(given);
    if (name && seen.includes(name)) return null;
    const path = name ? [...seen, name] : seen;
    if (schema.type === "array" && schema.items) return inside(schema.items, path);
    if (!schema.properties) return null;
    return el("ul", { class: "fields" }, Object.entries(schema.properties).map(([field, value]) => row(field, value, (schema.required || []).includes(field), path)));
  };
  const row = (name, given, required, seen) => {
    const { schema } = resolve(given);
    const said = bounds(schema);
    const items = schema.type === "array" && schema.items ? bounds(resolve(schema.items).schema) : [];
    if (items.length) said.push("each " + items.join(", "));
    const within = inside(given, seen);
    return el("li", {},
      el("code", { class: "name" }, name), el("span", { class: "type" }, kind(given)),
      required && el("span", { class: "must" }, "required"),
      said.length > 0 && el("span", { class: "note" }, said.join(" · ")),
      schema.description && el("span", { class: "note" }, inline(schema.description)),
      within && (seen.length > 1 ? el("details", {}, el("summary", { class: "note" }, "Show its fields"), within) : within));
  };
  const shape = (given) => {
    const fields = inside(given, []);
    if (fields) return fields;
    const { schema } = resolve(given);
    return el("p", { class: "note" }, [kind(given), ...bounds(schema)].join(" · "));
  };

  // The answer that the document shows: a text is shown as it is, anything else as JSON.
  const exampleAnswer = (operation) => {
    const [status, given] = Object.entries(operation.responses).find(([code]) => code < "300") || [];
    const [media] = Object.values((given && deref(given).content) || {});
    const shown = operation["x-example-answer"] ?? (media && media.example);
    if (shown === undefined) return [];
    const text = typeof shown === "string" ? shown : JSON.stringify(shown, null, 2);
    return [el("h4", {}, "Example answer: " + status), shell(text, "Copy the example answer of " + operation.summary)];
  };

  const quote = (text) => "'" + text.replace(/'/g, "'\\''") + "'";
  const claims = (operation) => (operation.security || []).some((scheme) => Object.keys(scheme).length === 0);
  const curl = (verb, path, operation, keyless) => {
    const url = new URL("..", location.href).href.replace(/\/$/, "") + path.replace(/\{(\w+)\}/g, (_, name) => "$" + name.toUpperCase());
    const parts = ["curl" + (verb === "get" ? "" : " -X " + verb.toUpperCase()) + ' "' + url + '"'];
    if (!keyless && !(operation.security && operation.security.length === 0)) parts.push('-H "authorization: Bearer $WARD_KEY"');
    if (operation["x-idempotency"]) parts.push('-H "idempotency-key: $(od -An -N16 -tx1 /dev/urandom | tr -d \' \\n\')"');
    if (operation.requestBody) {
      parts.push('-H "content-type: application/json"');
      parts.push("-d " + quote(JSON.stringify((keyless && operation["x-example-keyless"]) || operation["x-example"] || {})));
    }
    return parts.join(" \\\n  ");
  };
  const shell = (text, label) => {
    const button = el("button", { class: "copy", type: "button", "aria-label": label }, "Copy");
    button.addEventListener("click", async () => {
      let done = "Copied";
      try { await navigator.clipboard.writeText(text); } catch { done = "Select and copy by hand"; }
      button.textContent = done;
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
    return el("div", { class: "shell" }, el("pre", { tabindex: "0" }, el("code", {}, text)), button);
  };
  const examples = (verb, path, operation) => claims(operation)
    ? [el("h4", {}, "Example: without a key"), shell(curl(verb, path, operation, true), "Copy the example without a key"),
      el("h4", {}, "Example: with a key"), shell(curl(verb, path, operation), "Copy the example with a key")]
    : [el("h4", {}, "Example"), shell(curl(verb, path, operation), "Copy the example for " + operation.summary)];
  // A text that was entered or answered in one form is offered in the others. None of it is stored.
  const remembered = {};
  const inputs = [];
  const remember = (name, value) => {
    remembered[name] = value;
    for (const input of inputs) if (input.dataset.name === name && !input.value) input.value = value;
  };
  const fresh = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const tryIt = (verb, path, parameters, body, operation) => {
    const id = "try-" + operation.operationId;
    const check = (name, words, on) => {
      const box = el("input", { type: "checkbox", id: id + "-" + name });
      box.checked = on;
      return { box, label: el("label", { class: "check", for: box.id }, box, words) };
    };
    const filled = parameters.filter((parameter) => parameter.in === "path" || parameter.in === "query").map((parameter) => {
      const input = el("input", { type: "text", id: id + "-" + parameter.name, autocomplete: "off", spellcheck: "false" });
      if (parameter.in === "path") {
        input.dataset.name = parameter.name;
        inputs.push(input);
        input.addEventListener("change", () => remember(parameter.name, input.value.trim()));
      }
      return { parameter, input, label: el("label", { for: input.id }, el("code", { class: "name" }, parameter.name), input) };
    });
    const text = body && el("textarea", { id: id + "-body", spellcheck: "false", autocomplete: "off" });
    if (text) text.value = JSON.stringify(operation["x-example"] || {}, null, 2);
    const needs = (operation.security || api.security || []).length > 0;
    const withKey = check("key", "Send the key", needs);
    const once = operation["x-idempotency"] && check("once", "Send an Idempotency-Key that is made for this call", true);
    const send = el("button", { class: "button", type: "button" }, "Send " + verb.toUpperCase());
    const answer = el("div", { class: "answer", role: "status" });
    const say = (...parts) => answer.replaceChildren(...parts);
    send.addEventListener("click", async () => {
      const missing = filled.filter(({ parameter, input }) => parameter.in === "path" && !input.value.trim());
      if (missing.length) {
        missing[0].input.focus();
        return say(el("p", {}, "Fill in " + missing.map(({ parameter }) => parameter.name).join(" and ") + " first."));
      }
      const key = byId("key").value.trim();
      if (withKey.box.checked && !key) {
        byId("key").focus();
        return say(el("p", {}, "Enter a key for trying operations first, or do not send it."));
      }
      const value = (name) => filled.find(({ parameter }) => parameter.in === "path" && parameter.name === name).input.value.trim();
      const url = new URL(path.slice(1).replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(value(name))), new URL("..", location.href));
      for (const { parameter, input } of filled) {
        if (parameter.in === "query" && input.value.trim()) url.searchParams.set(parameter.name, input.value.trim());
      }
      const headers = {};
      if (withKey.box.checked) headers.authorization = "Bearer " + key;
      if (once && once.box.checked) headers["idempotency-key"] = fresh();
      if (text) headers["content-type"] = "application/json";
      send.disabled = true;
      const began = performance.now();
      try {
        const got = await fetch(url, { method: verb.toUpperCase(), headers, body: text ? text.value : undefined, credentials: "omit", cache: "no-store" });
        show(got, await got.text(), Math.round(performance.now() - began));
      } catch (error) {
        say(el("p", { role: "alert" }, "No answer: " + error.message + "."));
      } finally {
        send.disabled = false;
      }
    });
    const show = (got, raw, took) => {
      let parsed;
      try { parsed = JSON.parse(raw); } catch { parsed = undefined; }
      const tone = got.status < 300 ? "good" : got.status < 500 ? "bad" : "worse";
      const named = ["x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after", "x-api-key-expires", "idempotency-replayed"]
        .filter((name) => got.headers.has(name)).map((name) => name + ": " + got.headers.get(name));
      const parts = [el("p", {}, el("b", { class: "code " + tone }, got.status + " " + got.statusText), " · " + took + " ms"), el("p", { class: "note" }, named.join(" · "))];
      if (raw) parts.push(el("pre", { tabindex: "0" }, el("code", {}, (parsed === undefined ? raw : JSON.stringify(parsed, null, 2)).slice(0, 200000))));
      if (got.ok && parsed && operation.operationId === "create-workspace" && parsed.id) remember("workspace_id", parsed.id);
      if (got.ok && parsed && typeof parsed.api_key === "string") {
        const use = el("button", { class: "button plain", type: "button" }, "Try operations with this key");
        use.addEventListener("click", () => { byId("key").value = parsed.api_key; use.textContent = "It is used now"; use.disabled = true; });
        parts.push(el("p", {}, use));
      }
      say(...parts);
    };
    const details = el("details", { class: "try" }, el("summary", {}, "Try it"),
      el("p", { class: "note" }, "The request goes to this server and has real effects."),
      filled.map(({ label }) => label),
      text && el("label", { for: text.id }, el("code", { class: "name" }, "body"), text),
      withKey.label, once && once.label, send, answer);
    details.addEventListener("toggle", () => {
      for (const { parameter, input } of filled) if (parameter.in === "path" && !input.value) input.value = remembered[parameter.name] || "";
    });
    return details;
  };
  const chip = (words, strong) => el("li", {}, words, strong && el("b", {}, strong));
  const chips = (operation) => {
    const said = [];
    const schemes = operation.security || api.security || [];
    if (schemes.length === 0) said.push(chip("No key needed"));
    else if (operation["x-permission"]) said.push(chip("Needs ", operation["x-permission"]));
    else said.push(chip("Any valid key"));
    if (operation["x-role"]) said.push(chip("Role ", operation["x-role"]));
    if (claims(operation)) said.push(chip("Without a key: claims the workspace"));
    if (operation["x-idempotency"]) said.push(chip("Takes ", "Idempotency-Key"));
    return el("ul", { class: "chips", "aria-label": "Access" }, said);
  };
  const badge = (verb) => el("span", { class: "badge " + verb }, el("span", {}, verb.toUpperCase()));
  const responses = (operation) => Object.entries(operation.responses).map(([status, given]) => {
    const response = deref(given);
    const tone = status < "300" ? "good" : status < "500" ? "bad" : "worse";
    const media = Object.values(response.content || {})[0];
    const good = status < "300" && media;
    return el("li", {}, el("span", { class: "code " + tone }, status),
      el("div", {}, inline(response.description || ""),
        good && el("details", {}, el("summary", { class: "note" }, "Show its fields"), shape(media.schema))));
  });

  const card = (verb, path, item, operation) => {
    const parameters = [...(item.parameters || []), ...(operation.parameters || [])].map(deref);
    const body = operation.requestBody && Object.values(operation.requestBody.content)[0];
    const list = (title, place) => {
      const found = parameters.filter((parameter) => parameter.in === place);
      return found.length ? [el("h4", {}, title), el("ul", { class: "fields" }, found.map((parameter) =>
        row(parameter.name, parameter.description ? { ...parameter.schema, description: parameter.description } : parameter.schema, parameter.required, [])))] : [];
    };
    return el("article", { class: "card", id: operation.operationId, "aria-labelledby": operation.operationId + "-title" },
      el("h3", { id: operation.operationId + "-title" }, el("a", { href: "#" + operation.operationId }, operation.summary)),
      el("div", { class: "line" }, badge(verb), el("code", { class: "path" }, path.split(/(\{\w+\})/).map((part) => part.startsWith("{") ? el("b", {}, part) : part))),
      chips(operation),
      el("div", { class: "text" }, prose(operation.description || ""), operation["x-details"] ? prose(operation["x-details"]) : []),
      list("Path", "path"), list("Query", "query"), list("Headers", "header"),
      body ? [el("h4", {}, "Body"), shape(body.schema)] : [],
      el("h4", {}, "Responses"), el("ul", { class: "answers" }, responses(operation)),
      Object.keys(operation.responses).some((status) => status >= "400") && el("p", { class: "note" }, el("a", { href: "#errors" }, "What an error looks like")),
      exampleAnswer(operation),
      examples(verb, path, operation),
      tryIt(verb, path, parameters, body, operation));
  };

  const main = byId("content");
  byId("loading").remove();
  byId("version").textContent = api.info.version;
  document.title = api.info.title + " API";
  main.append(el("div", { class: "intro", id: "top" },
    el("h1", {}, api.info.title + " API"),
    el("p", { class: "sub" }, "Version " + api.info.version + " · ", el("a", { href: "openapi.json" }, "OpenAPI document")),
    prose(api.info.description || "")));

  const all = [];
  for (const [path, item] of Object.entries(api.paths)) {
    for (const verb of VERBS) if (item[verb]) all.push({ verb, path, item, operation: item[verb] });
  }
  const nav = byId("nav");
  const sections = [];
  for (const tag of api.tags || []) {
    const own = all.filter(({ operation }) => operation.tags[0] === tag.name);
    if (!own.length) continue;
    const section = el("section", { "aria-label": tag.name }, el("h2", {}, tag.name), el("p", { class: "lead" }, inline(tag.description || "")));
    const links = el("ul", {});
    for (const one of own) {
      one.card = card(one.verb, one.path, one.item, one.operation);
      one.link = el("li", {}, el("a", { href: "#" + one.operation.operationId }, el("span", { class: "verb " + one.verb }, one.verb.toUpperCase()), one.operation.summary));
      one.links = links;
      section.append(one.card);
      links.append(one.link);
    }
    const group = el("div", {}, el("h2", {}, tag.name), links);
    nav.append(group);
    main.append(section);
    sections.push({ section, group, own, tag: tag.name });
  }
  const errors = el("section", { "aria-label": "Error shapes" }, el("h2", { id: "errors" }, "Error shapes"),
    el("article", { class: "card" }, el("h3", {}, "Input of the wrong shape: 422"), el("div", { class: "text" }, prose("Every error at once, one per value, in the order the fields are declared.")),
      shell(JSON.stringify({ detail: [{ type: "string_too_short", loc: ["body", "slug"], msg: "String should have at least 2 characters", input: "a", ctx: { min_length: 2 } }] }, null, 2), "Copy the shape of a 422"),
      el("h4", {}, "Fields"), shape({ $ref: "#/components/schemas/HTTPValidationError" })),
    el("article", { class: "card" }, el("h3", {}, "Every other error"),
      shell(JSON.stringify({ detail: "The workspace was not found.", error_code: "not_found", request_id: "0f8fad5b-d9cb-469f-a165-70867728950e" }, null, 2), "Copy the shape of an error"),
      el("h4", {}, "Fields"), shape({ $ref: "#/components/schemas/ErrorResponse" })));
  main.append(errors);
  nav.append(el("div", {}, el("h2", {}, "Reference"), el("ul", {}, el("li", {}, el("a", { href: "#errors" }, "Error shapes")))));
  const client = el("section", { "aria-label": "The platform's TypeScript client" }, el("h2", { id: "typescript-client" }, "The platform's TypeScript client"),
    el("article", { class: "card" }, el("h3", {}, "Claim a workspace with it"),
      el("div", { class: "text" }, prose("The platform's TypeScript client works with Ward as it is, with one exception. It sends `authorization` with every call, and a claim is the call without it. One request hook drops the header. Use this client for the claim alone, and the key that it answers with for everything else. A release without `hooks` takes a `fetch` of your own, which can drop the header as well.")),
      shell('const claiming = new AmigoClient({\n  apiKey: "unused", workspaceId, baseUrl,\n  hooks: { onRequest: ({ request }) => { request.headers.delete("authorization") } },\n})\nconst { api_key } = await claiming.apiKeys.create({ duration_days: 90 })', "Copy the claim with the TypeScript client")));
  main.append(client);
  nav.append(el("div", {}, el("h2", {}, "Clients"), el("ul", {}, el("li", {}, el("a", { href: "#typescript-client" }, "The TypeScript client")))));

  const search = byId("search");
  const again = el("button", { class: "button plain", type: "button" }, "Show every operation");
  const nothing = el("p", {});
  const none = el("div", { class: "empty", hidden: "" }, nothing, again);
  const best = el("section", { "aria-label": "Operations that match", hidden: "" }, el("h2", {}, "Operations that match"));
  main.append(best, none);
  const bestLinks = el("ul", {});
  const bestGroup = el("div", { hidden: "" }, el("h2", {}, "Best first"), bestLinks);
  nav.prepend(bestGroup);

  // The rank of an operation for one word: id and title come before the path, and the path before the description.
  const fit = ({ path, verb, operation }, tag, word) => {
    const id = operation.operationId, title = operation.summary.toLowerCase(), parts = path.toLowerCase().split(/[/{}_-]+/);
    if (id === word || path === word) return 100;
    if (title.startsWith(word)) return 60;
    if (title.split(/\s+/).some((part) => part.startsWith(word))) return 45;
    if (parts.includes(word)) return 35;
    if (id.includes(word) || title.includes(word)) return 25;
    if (path.toLowerCase().includes(word) || verb === word) return 15;
    if ((operation["x-permission"] || "").toLowerCase().includes(word)) return 12;
    if (tag.toLowerCase().includes(word)) return 10;
    return ((operation.description || "") + " " + (operation["x-details"] || "")).toLowerCase().includes(word) ? 3 : 0;
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const ranked = [];
    for (const { section, group, own, tag } of sections) {
      for (const one of own) {
        const fits = words.map((word) => fit(one, tag, word));
        if (words.length && fits.every((one) => one > 0)) ranked.push({ one, points: fits.reduce((sum, one) => sum + one, 0) });
        section.append(one.card);
        one.links.append(one.link);
      }
      section.hidden = group.hidden = words.length > 0;
    }
    ranked.sort((left, right) => right.points - left.points);
    for (const { one } of ranked) { best.append(one.card); bestLinks.append(one.link); }
    best.hidden = bestGroup.hidden = ranked.length === 0;
    byId("top").hidden = errors.hidden = client.hidden = words.length > 0;
    none.hidden = words.length === 0 || ranked.length > 0;
    nothing.textContent = "No operation matches “" + search.value.trim() + "”. Every word must be in its name, path, permission or description.";
    byId("count").textContent = words.length === 0 ? "" : ranked.length === 0 ? "No operation matches." : ranked.length === 1 ? "1 operation matches." : ranked.length + " operations match.";
  };
  search.addEventListener("input", filter);
  again.addEventListener("click", () => { search.value = ""; filter(); search.focus(); });
  // A link leads to its operation even if a search hides it.
  const reveal = (id) => {
    const wanted = id && byId(id);
    if (!wanted) return;
    if (search.value && !best.contains(wanted)) { search.value = ""; filter(); }
    wanted.scrollIntoView({ behavior: "instant" });
  };
  const fragment = () => decodeURIComponent(location.hash.slice(1));
  addEventListener("hashchange", () => reveal(fragment()));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) reveal(fragment());
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !document.activeElement.matches("input, textarea") && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    }
  });
  const menu = byId("menu");
  const open = (yes) => { nav.classList.toggle("open", yes); menu.setAttribute("aria-expanded", String(yes)); };
  menu.addEventListener("click", () => open(!nav.classList.contains("open")));
  nav.addEventListener("click", (event) => { if (event.target.closest("a")) open(false); });
  search.addEventListener("focus", () => open(true));

  // The operation nearest the top of the window is the current one in the list.
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const one = all.find(({ card }) => card === entry.target);
      const link = one.link.firstChild;
      if (entry.isIntersecting) {
        nav.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
        link.setAttribute("aria-current", "location");
      } else {
        link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-15% 0px -80% 0px" });
  all.forEach(({ card }) => card && watch.observe(card));
  // The browser looked for the fragment before the page had its content.
  reveal(fragment());
};

fetch("openapi.json")
  .then((answer) => { if (!answer.ok) throw new Error("status " + answer.status); return answer.json(); })
  .then(start)
  .catch((error) => {
    const said = el("p", { class: "empty", role: "alert" }, "The document could not be read (" + error.message + "). Reload to try again.");
    (byId("loading") || byId("content")).replaceWith(said);
  });
