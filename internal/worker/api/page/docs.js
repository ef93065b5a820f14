"use strict";
for (const form of document.querySelectorAll("form")) {
  const { method, path } = form.dataset;
  const answer = form.nextElementSibling;
  const show = (headline, text, bad) => {
    const strong = document.createElement("strong");
    strong.textContent = headline;
    strong.className = bad ? "bad" : "";
    const pre = document.createElement("pre");
    pre.textContent = text;
    answer.replaceChildren(strong, pre);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let where = path;
    const token = document.getElementById("token");
    const headers = token && token.value ? { Authorization: "Bearer " + token.value } : {};
    for (const field of form.querySelectorAll("select")) {
      if (field.dataset.in === "path") {
        where = where.replace("{" + field.name + "}", encodeURIComponent(field.value));
      } else if (field.value) {
        headers[field.name] = field.value;
      }
    }
    const body = form.elements.body;
    try {
      const start = performance.now();
      const response = await fetch(where || ".", { method, headers, body: body && body.value });
      const text = await response.text();
      const took = (performance.now() - start).toFixed(1) + " ms";
      show("HTTP " + response.status, text + "\n\n" + took, !response.ok);
    } catch (error) {
      show("No answer", String(error), true);
    }
  });
}
