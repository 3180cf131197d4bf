const belt = document.getElementById("belt"), trouble = document.getElementById("trouble");
async function refresh() {
  try {
    const answer = await fetch("belt", {cache: "no-store"});
    if (!answer.ok) throw answer.status;
    belt.innerHTML = await answer.text();
    trouble.textContent = "";
  } catch (error) {
    trouble.textContent = "tamis view does not answer: this page is out of date.";
  }
  setTimeout(refresh, {{ refresh_ms }});
}
refresh();
