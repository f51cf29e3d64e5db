"""Every on-disk format of the pipeline: name, version, dimensions, types; how it is written and read.

    manifest.parquet     excel-manifest/1      one row per image; columns in datasets/manifest.py
    left_out.csv                               what of a folder of photos is not used, and why (tasks/stages/dataset.py)
    descriptions.json    excel-descriptions/1  provenance, class -> n texts (text/descriptions.py)
    prompts.json                               the class set, as text/prompts.py's PromptSet
    knowledge.zarr       excel-knowledge/2     text (C+Z, D), templates (C, D), attributes (A, D), descriptions (n*C, D)
                                               float32; names and description texts as attributes of the group
    cams.zarr            excel-cams/4          one group per shard of images: cams (I, K, h, w) float16 in [0, 1], 32 images a
                                               chunk; classes (I, K) int16, 0-based, -1 where an image has fewer than K;
                                               where it is kept, attention (I, M, M) float16 of M = h*w patches, 8 images a
                                               chunk
    cams.parquet         excel-cams/4          id, shard and row of each image in cams.zarr
    presence/SHARD.parquet                     CLIP's scores by image, a column per class by its number from 0
    masks/ID.json                              masks that vote on an image's label map (datasets/mask_proposals.py)
    quality.csv, doubtful.csv                  what to look at first, for people (tasks/stages/quality.py, safe_csv.py)
    confusion.parquet    excel-confusion/1     pixels by image, result key, true and predicted label; only counts above 0
    levels.parquet       excel-levels/1        pixels by image, true label, strongest class (0-based) and CAM level in 0..99
    presence.parquet     excel-presence/1      zero-shot presence scores by image, one column per class
    *.png                                      palette PNG, 0 background, c+1 class c, 255 ignore (datasets/palette.py)
    segmenter.safetensors                      the trained weights; architecture and class names as metadata
                                               (models/checkpoints.py)
    kept/N.safetensors                         the same after N iterations, by `train.keep_every` (tasks/stages/train_resume.py)
    <key>.resume/        of a training that is not complete:
      checkpoint.pt      excel-checkpoint/2    iteration, architecture, segmenter and optimiser tensors, losses
                                               (models/checkpoints.py); checkpoint.previous.pt is the one before it
      kept/N.kept        excel-kept/1          the bytes of kept/N.safetensors
    texts/ENCODER/TEXT.embedding  excel-embedding/1  (D,) float32 (text/embeddings.py)
    texts/ENCODER/KEY.attributes  excel-attributes/1  (A, D) float32, for single photos (text/kept_attributes.py)
    metrics.json         excel-metrics/1       scores by protocol key (tasks/stages/evaluate.py)
    ablation.json        excel-ablation/1      a row's score, interval and threshold (tasks/stages/ablation.py)
    curve.json           excel-curve/1         scores by iteration of the segmenters that were kept (tasks/stages/curve.py)
    counts.parquet                             pixels by iteration, kind of label map, true and predicted label
                                               (tasks/stages/curve.py)
    figures.json         excel-figures/1       what the paper's figures show (tasks/stages/figures.py)
    table.json           excel-paper/1         a table of the paper for one data set (tasks/stages/paper.py); of all its data
                                               sets in STORE/paper/TABLE.json (flows/paper.py)
    stage.json           excel-stage/4         the marker of a complete output (tasks/engine/output.py)
    records/ID.json      excel-run/1           one run (tasks/history/run_record.py)

Outside the store, for others:

    *.safetensors        excel-segmenter/1     the trained segmenter with its vision tower, to run alone
                                               (prediction/trained_segmenter.py)
    *.onnx               excel-segmenter-onnx/1  the same as a graph (exports/onnx_graph.py)
    export.json          excel-export/1        what an exported folder holds and from which run (tasks/photos/export.py)
    photos.json          excel-photos/1        the results of single photos (tasks/photos/segment_photos.py)

Files are written under a temporary name, synced and renamed (files.py), so a reader never meets half a file, not after a power
cut either. Those that no marker speaks of hold a digest of their own (checked_files.py): markers, records, the paper's tables,
checkpoints, kept segmenters, text embeddings. A file of an earlier format is made again.

Here are those that several stages share: tables.py (Parquet), knowledge.py, cam_writer.py, cam_reader.py. zarr_arrays.py opens
an array of the expected type alone, zarr_folder.py writes one durably; damage.py says in one line that a file is not readable.
"""

from excel_core.stores.cam_reader import CamReader, StoredCams
from excel_core.stores.cam_writer import CamWriter, join_cams, write_cams
from excel_core.stores.knowledge import read_knowledge, write_knowledge
from excel_core.stores.tables import read_counts, read_manifest, write_counts, write_manifest

__all__ = [
    "CamReader", "CamWriter", "StoredCams", "join_cams", "read_counts", "read_knowledge", "read_manifest", "write_cams",
    "write_counts", "write_knowledge", "write_manifest",
]  # fmt: skip
