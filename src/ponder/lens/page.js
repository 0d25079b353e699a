
const shortcuts = await drawLens(document.getElementById("lens"), JSON.parse(document.getElementById("data").textContent));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target.matches("input, select, textarea")) return;
  const pressed = shortcuts.find((each) => each.keys.includes(event.key));
  if (!pressed) return;
  event.preventDefault();
  pressed.act();
});
document.body.dataset.ready = "";
