// Scores that are computed as a reader moves the threshold, at the size of the pictures.

// cam (h, w) in 0..255 → Float32Array (height, width) in [0, 1], bilinear between the patches' centres.
function upsampled(cam, width, height) {
  const result = new Float32Array(width * height);
  const columns = Array.from({ length: width }, (_, x) => between(x, width, cam.width));
  for (let y = 0; y < height; y++) {
    const row = between(y, height, cam.height);
    for (let x = 0; x < width; x++) {
      const column = columns[x];
      const above = mixed(cam.values, row.low * cam.width, column);
      const below = mixed(cam.values, row.high * cam.width, column);
      result[y * width + x] = (above + (below - above) * row.share) / 255;
    }
  }
  return result;
}

// The two patches around the middle of a pixel, and how far it lies towards the second.
function between(pixel, pixels, patches) {
  const position = Math.min(Math.max(((pixel + 0.5) * patches) / pixels - 0.5, 0), patches - 1);
  const low = Math.floor(position);
  return { low, high: Math.min(low + 1, patches - 1), share: position - low };
}

function mixed(values, start, { low, high, share }) {
  return values[start + low] + (values[start + high] - values[start + low]) * share;
}

// The upsampled CAMs of a picture, made once.
function fullCams(picture) {
  picture.full ??= picture.cams.map((cam) => upsampled(cam, picture.width, picture.height));
  return picture.full;
}

// The label map of all CAMs at a threshold: the class of the largest CAM, background where that is below the threshold.
function labelsAt(picture, threshold) {
  const labels = new Uint8Array(picture.width * picture.height);
  const largest = new Float32Array(labels.length);
  fullCams(picture).forEach((cam, place) => {
    for (let pixel = 0; pixel < labels.length; pixel++) {
      if (cam[pixel] > largest[pixel]) {
        largest[pixel] = cam[pixel];
        labels[pixel] = cam[pixel] >= threshold ? picture.cams[place].value : 0;
      }
    }
  });
  return labels;
}

// The label map of one CAM at a threshold.
function maskAt(picture, place, threshold) {
  const { value } = picture.cams[place];
  return Uint8Array.from(fullCams(picture)[place], (level) => (level >= threshold ? value : 0));
}

// labels and truth (N,) → pixels by what they are, where the truth is not ignored.
function pixelsBy(labels, truth) {
  const counts = { right: 0, missed: 0, false: 0, wrong: 0 };
  for (let pixel = 0; pixel < truth.length; pixel++) {
    const kind = mistake(labels[pixel], truth[pixel]);
    if (kind) counts[kind]++;
  }
  return counts;
}

// What a pixel is: right (of a class), missed (taken for background), false (background), wrong (of another class); "" for
// background that is right and for what no score counts.
function mistake(label, truth) {
  if (truth === IGNORE || (truth === 0 && label === 0)) return "";
  if (label === truth) return "right";
  if (truth === 0) return "false";
  return label === 0 || label === IGNORE ? "missed" : "wrong";
}

// Foreground IoU; null where neither holds a class.
function foregroundIou(labels, truth) {
  const { right, missed, false: falsely, wrong } = pixelsBy(labels, truth);
  const either = right + missed + falsely + wrong;
  return either ? right / either : null;
}

// IoU of one class; null where neither holds it.
function classIou(labels, truth, value) {
  let [both, either] = [0, 0];
  for (let pixel = 0; pixel < truth.length; pixel++) {
    if (truth[pixel] === IGNORE) continue;
    const [said, true_] = [labels[pixel] === value, truth[pixel] === value];
    both += said && true_;
    either += said || true_;
  }
  return either ? both / either : null;
}
