// What the document on the screen holds, for `looks.py`: elements are named by tag, words and size in pixels.
async () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const words = (element) => element.getAttribute("alt") || element.getAttribute("aria-label") || element.textContent;
  const name = (element) => {
    const { width, height } = element.getBoundingClientRect();
    return `${element.localName} "${words(element).slice(0, 40)}", ${Math.round(width)} x ${Math.round(height)}`;
  };
  const isEmpty = ({ width, height }) => !(width > 0 && height > 0);
  const isSeen = (element) => !isEmpty(element.getBoundingClientRect());

  // Contrast as WCAG 2.2 defines it. Text on no background of the page's own has none: the browser picks its colour.
  const linear = (channel) => (channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [red, green, blue] = colour.match(/[\d.]+/g).map((text) => linear(text / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const background = (element) => {
    if (!element) return null;
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? background(element.parentElement) : colour;
  };
  const contrast = (element) => {
    const behind = background(element);
    if (!behind) return 1;
    const both = [getComputedStyle(element).color, behind].map(luminance);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };

  const ended = (video) =>
    video.readyState > 0 || video.error || new Promise((resolve) => {
      for (const event of ["loadedmetadata", "error"]) video.addEventListener(event, resolve);
    });
  await Promise.all(all("video").map(ended));

  return {
    width: document.documentElement.scrollWidth,
    lacking: ["html[lang]", "title", "meta[name=viewport]"].filter((selector) => !document.querySelector(selector)),
    images: all("img").length,
    plots: all("svg").length,
    broken: all("img").filter((img) => !img.complete || !img.naturalWidth || !isSeen(img)).map(name),
    blank: all("svg").filter((svg) => !isSeen(svg) || isEmpty(svg.getBBox())).map(name),
    videos: all("video").length,
    unplayable: all("video").filter((video) => !video.videoWidth || !isSeen(video)).map(name),
    nameless: [
      ...all("video").filter((video) => !video.getAttribute("aria-label")),
      ...all("img").filter((img) => !img.hasAttribute("alt")),
      ...all("svg").filter((svg) => !svg.getAttribute("aria-label") && svg.getAttribute("aria-hidden") !== "true"),
    ].map(name),
    headings: all("h1, h2, h3, h4, h5, h6").map((heading) => [Number(heading.localName[1]), heading.textContent]),
    faint: all("h1, h2, h3, p, td, th, figcaption, code, span")
      .filter((one) => one.textContent.trim() && contrast(one) < 4.5)
      .map(name),
  };
}
