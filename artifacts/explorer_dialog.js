// One image large: every step, mistakes, activation maps with a threshold, zoom, the other run and the truth side by side.

const LARGE_SIZE = { canvas: 900, shown: 560, letters: 16 }; // as CARD_SIZE

class LargeView {
  // style: what the cards' controls say when an image is opened.
  constructor(run, dialog) {
    this.run = run;
    this.dialog = dialog;
    this.find("step").addEventListener("input", () => this.draw());
    this.find("look").addEventListener("change", () => this.draw());
    this.find("cam-class").addEventListener("change", () => this.draw());
    this.find("threshold").addEventListener("input", () => this.draw());
    this.find("opacity").addEventListener("input", () => this.draw());
    this.find("zoom").addEventListener("input", () => this.zoom());
    this.find("close").addEventListener("click", () => dialog.close());
    this.find("previous").addEventListener("click", () => this.go(-1));
    this.find("next").addEventListener("click", () => this.go(1));
    dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input, select, .frame, .scroll") || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") this.go(-1);
      if (event.key === "ArrowRight") this.go(1);
    });
  }

  find(name) {
    return this.dialog.querySelector(`.${name}`);
  }

  // rows: those of the cards in their order, of which `row` is one.
  async open(row, rows, other, asked) {
    [this.rows, this.other, this.asked] = [rows, other, asked];
    this.find("threshold").value = Math.round(100 * this.run.threshold);
    this.find("opacity").value = Math.round(100 * asked.style.opacity);
    if (!this.dialog.open) this.dialog.showModal();
    await this.show(row);
  }

  go(step) {
    const row = this.rows[this.rows.indexOf(this.row) + step];
    if (row) this.show(row);
  }

  async show(row) {
    this.row = row;
    const { image, kind } = row;
    const place = this.rows.indexOf(row);
    document.getElementById("large-title").textContent = image.id;
    this.find("said").textContent =
      `${image.split} · ${image.labels.map((value) => this.run.name(value)).join(", ")} · ${place + 1} of ${this.rows.length}`;
    [this.find("previous").disabled, this.find("next").disabled] = [place === 0, place === this.rows.length - 1];
    this.find("step").max = image.kinds.length - 1;
    this.find("step").value = image.kinds.indexOf(kind);
    [this.picture, this.otherPicture] = [null, null];
    try {
      const picture = await this.run.picture(image);
      const theirs = row.beside && (await otherPicture(row, picture).catch(() => null));
      if (this.row !== row) return; // the reader has gone on
      [this.picture, this.otherPicture] = [picture, theirs];
    } catch (error) {
      showTrouble(this.run, error);
      this.find("panels").replaceChildren(drawnPicture(this.run, image, kind));
      this.find("live").textContent = document.getElementById("trouble").textContent;
      return;
    }
    this.fillChoices();
    this.draw();
  }

  fillChoices() {
    const { cams, truth } = this.picture;
    const choices = this.find("cam-class");
    choices.replaceChildren(...cams.map((cam, place) => new Option(this.run.name(cam.value), place)));
    choices.value = Math.max(0, cams.findIndex((cam) => cam.value === this.asked.class));
    const look = this.find("look");
    look.querySelector("[value=cam]").disabled = cams.length === 0;
    look.querySelector("[value=errors]").disabled = !truth;
    if (look.selectedOptions[0].disabled) look.value = "labels";
  }

  draw() {
    if (!this.picture) return;
    const { image } = this.row;
    const kind = image.kinds[Number(this.find("step").value)];
    const look = this.find("look").value;
    const title = this.run.titleOf(kind);
    this.find("step-name").textContent = title;
    this.find("step").setAttribute("aria-valuetext", title);
    for (const part of this.dialog.querySelectorAll(".for-cam")) part.hidden = look !== "cam";
    this.style = { ...this.asked.style, opacity: Number(this.find("opacity").value) / 100 };
    const row = rowOf(this.run, this.other, image, kind, this.asked.class); // the same step of both runs, where both have it
    fillBadges(this.find("badges"), this.run, row, this.asked.class);
    const panels = this.panels(row, look, title);
    for (const figure of panels) this.makeScrollable(figure);
    this.find("panels").replaceChildren(...panels);
    this.zoom();
    this.fillTable(row);
  }

  // In the order of the cards.
  panels(row, look, title) {
    const { picture, run, style } = this;
    const { image, beside } = row;
    const own = this.ownPanels(row, look, title);
    const truth = picture.truth ? [labelPanel("truth", image, picture, picture.truth, run, style, LARGE_SIZE)] : [];
    if (!this.otherPicture) return [...own, ...truth];
    const labels = this.otherPicture.maps.get(beside.kind);
    const fitting = translated(labels, this.otherPicture, picture, beside.run, run);
    const theirs = labelPanel(beside.run.titleOf(beside.kind), beside.image, this.otherPicture, labels, beside.run, style, LARGE_SIZE);
    const difference = differencePanel(run, row, picture, fitting, style, LARGE_SIZE);
    return run.label ? [...truth, theirs, ...own, difference] : [...own, theirs, difference, ...truth];
  }

  ownPanels({ image, kind }, look, title) {
    const { picture, run, style } = this;
    const labels = picture.maps.get(kind);
    this.find("live").textContent = "";
    if (look === "photo") return [photoPanel(image, picture, LARGE_SIZE)];
    if (look === "cam") return this.camPanels();
    if (look === "errors") return [this.errorPanel(title, labels)];
    return [labelPanel(title, image, picture, labels, run, style, LARGE_SIZE)];
  }

  // The activation map with its threshold's outline, and the label map of all of them at it.
  camPanels() {
    const { picture, run } = this;
    const { image } = this.row;
    const place = Number(this.find("cam-class").value);
    const threshold = Number(this.find("threshold").value) / 100;
    const name = run.name(picture.cams[place].value);
    const labels = labelsAt(picture, threshold);
    const said = this.atThreshold(place, threshold, labels);
    this.find("threshold-value").textContent = threshold.toFixed(2);
    this.find("live").textContent = said;
    const cam = makePanel(`CAM: ${name}`, `outline: at least ${threshold.toFixed(2)}`, `activation map of ${name}; ${said}`);
    drawCam(cam.canvas, picture, place, run, threshold, LARGE_SIZE);
    return [cam.figure, labelPanel("all CAMs at the threshold", image, picture, labels, run, this.style, LARGE_SIZE)];
  }

  atThreshold(place, threshold, labels) {
    const { picture, run } = this;
    const value = picture.cams[place].value;
    const start = `At ${threshold.toFixed(2)} (the step raw has ${run.threshold.toFixed(2)})`;
    if (!picture.truth) return `${start}: no truth to compare with.`;
    const own = classIou(maskAt(picture, place, threshold), picture.truth, value);
    const all = foregroundIou(labels, picture.truth);
    const size = `${picture.width} x ${picture.height}`;
    return `${start}: IoU of ${run.name(value)} alone ${decimals(own)}; foreground IoU of all CAMs ${decimals(all)}; at ${size} pixels.`;
  }

  errorPanel(title, labels) {
    const counts = pixelsBy(labels, this.picture.truth);
    const total = Math.max(1, counts.right + counts.missed + counts.false + counts.wrong);
    const parts = Object.entries(ERRORS).map(([kind, look]) => `${look.words} ${percent(counts[kind] / total)}`);
    const words = `right ${percent(counts.right / total)}, ${parts.join(", ")}; the truth is outlined`;
    const { figure, canvas } = makePanel(`errors of ${title}`, words, `errors of ${title} on image ${this.row.image.id}: ${words}`);
    drawErrors(canvas, this.picture, labels, Math.max(0.35, this.style.opacity), LARGE_SIZE);
    figure.querySelector(".words").append(legendOf(ERRORS));
    return figure;
  }

  // Panels scroll together, with mouse and keys.
  makeScrollable(figure) {
    const frame = figure.querySelector(".frame");
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", `${figure.querySelector(".title").textContent}, scrolls when enlarged`);
    frame.addEventListener("scroll", () => {
      for (const other of this.dialog.querySelectorAll(".frame")) {
        if (other !== frame) other.scrollTo(frame.scrollLeft, frame.scrollTop);
      }
    });
  }

  zoom() {
    const zoom = Number(this.find("zoom").value);
    this.find("zoom").setAttribute("aria-valuetext", `${zoom} times`);
    for (const canvas of this.dialog.querySelectorAll("canvas")) canvas.style.width = `${100 * zoom}%`;
  }

  fillTable({ image, kind, beside }) {
    const score = image.scores.get(kind);
    const values = new Set([...image.labels, ...Object.keys(score?.classes ?? {}).map(Number)]);
    const head = ["class", "image-level label", this.run.label ? `IoU of ${this.run.label}` : "IoU", ...(beside ? [`IoU of ${beside.run.label}`] : []), "mistake"];
    const rows = [...values].sort((a, b) => a - b).map((value) => {
      const mistakes = ["missed", "false"].filter((kind) => score?.[kind].includes(value));
      const name = this.run.name(value);
      const theirs = beside ? [decimals(beside.image.iou(beside.kind, beside.run.names.indexOf(name)))] : [];
      return [name, image.labels.includes(value) ? "yes" : "no", decimals(image.iou(kind, value)), ...theirs, mistakes.join()];
    });
    this.find("by-class").replaceChildren(tableRow("th", head), ...rows.map((cells) => tableRow("td", cells)));
  }
}

function tableRow(tag, cells) {
  const row = document.createElement("tr");
  row.append(...cells.map((cell) => element(tag, "", cell)));
  if (tag === "th") for (const cell of row.cells) cell.scope = "col";
  return row;
}
