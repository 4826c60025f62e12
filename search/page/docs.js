// Show the OpenAPI description of the service.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type ?? "";
}

function limits(schema) {
  const names = ["minLength", "maxLength", "minimum", "maximum", "default"];
  return names.filter((name) => name in schema).map((name) => `${name} ${schema[name]}`).join(", ");
}

function row(name, schema, more) {
  const facts = [typeOf(schema), limits(schema), more ?? schema.description].filter(Boolean);
  return element("li", "", element("code", name), ` ${facts.join(" · ")}`);
}

function operation(path, method, described) {
  const rows = (described.parameters ?? []).map((p) => row(p.name, p.schema, p.description));
  const answer = described.responses["200"]?.content ?? {};
  const kinds = Object.entries(answer).map(([kind, it]) => `${kind} ${typeOf(it.schema)}`);
  return [
    element("h2", `${method.toUpperCase()} ${path}`),
    element("p", described.description),
    element("ul", "", ...rows),
    element("p", kinds.length ? `Answers with ${kinds.join(", ")}` : ""),
  ];
}

const api = await (await fetch("openapi.json")).json();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, described] of Object.entries(methods)) {
    document.getElementById("paths").append(...operation(path, method, described));
  }
}
for (const [name, schema] of Object.entries(api.components.schemas)) {
  const rows = Object.entries(schema.properties ?? {}).map(([key, it]) => row(key, it));
  const shown = [element("h2", name), element("p", schema.description), element("ul", "", ...rows)];
  document.getElementById("schemas").append(...shown);
}
