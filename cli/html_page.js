"use strict";
// Filters of a page: see cli/html_page.py. What is chosen is kept in the address, to be passed on.
for (const form of document.querySelectorAll("[data-filters]")) {
  const articles = [...document.getElementById(form.dataset.filters).querySelectorAll("[data-facets]")];
  const selects = [...form.querySelectorAll("select[data-facet]")];
  const search = form.querySelector("input[type=search]");
  const output = form.querySelector("output");
  const texts = new Map();

  const facets = new Map(articles.map((article) => [
    article, article.dataset.facets.split(" ").map((combination) => combination.split(",")),
  ]));

  function holds(article, words) {
    if (!texts.has(article)) texts.set(article, article.textContent.toLowerCase());
    return texts.get(article).includes(words);
  }

  function apply() {
    const wanted = selects.map((select) => [Number(select.dataset.facet), select.value]);
    const words = search ? search.value.trim().toLowerCase() : "";
    let shown = 0;
    for (const article of articles) {
      const fits = facets.get(article).some((combination) =>
        wanted.every(([place, value]) => value === "" || combination[place] === value));
      article.hidden = !(fits && (words === "" || holds(article, words)));
      if (!article.hidden) shown += 1;
    }
    if (output) output.textContent = `${shown} of ${articles.length} shown`;
  }

  function remember() {
    const chosen = new URLSearchParams();
    for (const select of selects) if (select.value !== "") chosen.set(select.name, select.value);
    if (search && search.value !== "") chosen.set(search.name, search.value);
    try {
      history.replaceState(null, "", `#${chosen}`);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // some browsers forbid it for local files
    }
  }

  const given = new URLSearchParams(location.hash.slice(1));
  for (const select of selects) {
    const value = given.get(select.name);
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  }
  if (search && given.has(search.name)) search.value = given.get(search.name);
  form.addEventListener("input", () => { apply(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
document.addEventListener("click", (event) => {
  if (event.target.matches(".strip img")) event.target.classList.toggle("large");
});
