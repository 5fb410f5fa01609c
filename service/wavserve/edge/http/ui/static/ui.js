// Replaces the pieces of the page that change, once a second. Without it the page stays as it was loaded.
"use strict";

const connection = document.getElementById("connection");
const pause = document.getElementById("pause");
const cards = document.getElementById("cards");
const SILENCE_MS = 10000; // ten looks: a browser does not notice by itself that the gateway's machine is gone
let source = null;
let silence = null;
let waiting = null;

function say(words) {
  if (connection.textContent !== words) connection.textContent = words;
}

function newCard(key, name) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  card.dataset.key = key;
  for (const each of card.querySelectorAll("[id]")) each.id += key;
  card.setAttribute("aria-labelledby", "n-" + key);
  card.querySelector("button").setAttribute("aria-describedby", "n-" + key);
  card.querySelector("form").action += key;
  card.querySelector("h3").textContent = name;
  return card;
}

function arrange(wanted) {
  const known = new Map([...cards.children].map((card) => [card.dataset.key, card]));
  const keys = new Set(wanted.map(([key]) => key));
  for (const [key, card] of known) {
    if (keys.has(key)) continue;
    if (card.contains(document.activeElement)) document.getElementById("robots").focus();
    card.remove();
  }
  wanted.forEach(([key, name], index) => {
    const card = known.get(key) || newCard(key, name);
    if (cards.children[index] !== card) cards.insertBefore(card, cards.children[index] || null);
  });
}

function show(event) {
  const look = JSON.parse(event.data);
  arrange(look.cards);
  for (const [id, html] of Object.entries(look.pieces)) {
    const place = document.getElementById(id);
    if (place) place.innerHTML = html; // the gateway has escaped every text in it
  }
  say("Live.");
  heard();
}

function heard() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    say("The gateway does not answer; trying again.");
    connect();
  }, SILENCE_MS);
}

function connect() {
  disconnect();
  heard();
  source = new EventSource("/ui/events");
  source.addEventListener("look", show);
  source.addEventListener("bye", () => say("The gateway ended the updates; trying again."));
  source.addEventListener("error", () => {
    const isRefused = source.readyState === EventSource.CLOSED;
    say(isRefused ? "No updates: the gateway refused them; trying again." : "The gateway does not answer; trying again.");
    if (isRefused) again();
  });
}

function again() {
  disconnect();
  waiting = setTimeout(connect, 10000);
}

function disconnect() {
  clearTimeout(waiting);
  clearTimeout(silence);
  if (source) source.close();
  source = null;
}

pause.hidden = false;
pause.addEventListener("click", () => {
  const isLive = pause.textContent === "Pause";
  pause.textContent = isLive ? "Resume" : "Pause";
  if (isLive) {
    disconnect();
    say("Paused.");
  } else {
    connect();
  }
});

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  const place = document.getElementById(event.target.parentElement.querySelector(".imagined").id);
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true"); // a disabled button would lose the focus
  place.textContent = "Imagining; every plan comes first.";
  try {
    const answer = await fetch(event.target.action, { method: "POST", headers: { accept: "text/x-part" } });
    if (!answer.headers.get("content-type").startsWith("text/html")) throw new Error((await answer.json()).detail);
    place.innerHTML = await answer.text(); // escaped by the gateway
  } catch (error) {
    place.textContent = "No frames: " + error.message;
  }
  button.removeAttribute("aria-disabled");
});

say("Connecting.");
connect();
