// Draws the figures of a page that opens offline, once plotly.js is unpacked.
(async () => {
  const places = document.querySelectorAll(".chart");
  try {
    const packed = document.getElementById("plotly").textContent;
    const bytes = Uint8Array.from(atob(packed), (each) => each.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const library = document.createElement("script");
    library.textContent = await new Response(unpacked).text();
    document.head.append(library);
    for (const place of places) {
      await Plotly.newPlot(place, JSON.parse(place.nextElementSibling.textContent));
    }
  } catch (error) {
    for (const place of places) {
      place.textContent ||= `The chart cannot be drawn (${error.message}). Open this page in a browser of 2023 or later.`;
    }
    throw error;
  }
})();
