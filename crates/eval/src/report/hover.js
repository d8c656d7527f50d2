(() => {
  const tip = document.getElementById("tip");
  for (const svg of document.querySelectorAll("svg[data-p]")) {
    const points = svg.dataset.p.split(";").filter(Boolean).map((point) => point.split(","));
    if (!points.length) continue;
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    dot.setAttribute("class", "hot");
    dot.setAttribute("r", 4);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      const x = (event.clientX - box.left) / scale;
      let near = points[0];
      for (const point of points) if (Math.abs(point[0] - x) < Math.abs(near[0] - x)) near = point;
      dot.setAttribute("cx", near[0]);
      dot.setAttribute("cy", near[1]);
      svg.append(dot);
      tip.textContent = `${svg.dataset.x} ${near[2]}: ${near[3]} ${svg.dataset.u}`.trim();
      tip.style.left = `${box.left + scrollX + near[0] * scale}px`;
      tip.style.top = `${box.top + scrollY + near[1] * scale}px`;
      tip.hidden = false;
    });
    svg.addEventListener("pointerleave", () => {
      dot.remove();
      tip.hidden = true;
    });
  }
})();
