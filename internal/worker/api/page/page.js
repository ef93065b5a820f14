
"use strict";
const form = document.getElementById("form");
if (form) {
  const { model, sample } = form.elements;
  const where = document.getElementById("where");
  const answer = document.getElementById("answer");
  const path = () => "predict/" + encodeURIComponent(model.value);
  const show = (headline, text, bad) => {
    const strong = document.createElement("strong");
    strong.textContent = headline;
    strong.className = bad ? "bad" : "";
    const pre = document.createElement("pre");
    pre.textContent = text;
    answer.replaceChildren(strong, pre);
  };
  model.addEventListener("change", () => {
    sample.value = model.selectedOptions[0].dataset.sample;
    where.textContent = "/" + path();
    answer.replaceChildren();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const start = performance.now();
      const token = document.getElementById("token");
      const headers = token && token.value ? { Authorization: "Bearer " + token.value } : {};
      const response = await fetch(path(), { method: "POST", headers, body: sample.value });
      const text = await response.text();
      const took = (performance.now() - start).toFixed(1) + " ms";
      const { prediction } = response.ok ? JSON.parse(text) : {};
      show(prediction === undefined ? "HTTP " + response.status : "Prediction: " + prediction, text + "\n\n" + took, !response.ok);
    } catch (error) {
      show("No answer", String(error), true);
    }
  });
}
