// Links that open a dialog of the page, or close it; without this script they lead to the page with
// the dialog open, and without it.
for (const dialog of document.querySelectorAll("dialog")) {
  if (dialog.open) { // Sent open: shown as a modal one, so that focus stays in it and Escape closes.
    dialog.close();
    dialog.showModal();
  }
}
for (const link of document.querySelectorAll("[data-opens], [data-closes]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const { opens, closes } = link.dataset;
    if (opens) document.getElementById(opens).showModal();
    else document.getElementById(closes).close();
  });
}
