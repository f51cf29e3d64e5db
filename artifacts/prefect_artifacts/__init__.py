"""The results as Prefect artifacts: tables, and Markdown pages with small pictures.

Keys are stable, so that the UI shows an artifact's history from run to run:

    excel-results-<preset>            every result with its protocol
    excel-classes-<preset>-<family>   a family of results by class, e.g. seeds-lvc-train, segmentation-val
    excel-paper-<table>               a table of the paper, ours beside the published figures
    excel-score-<preset>              the training-free label maps, scored by the flow `score`
    excel-score-change-<preset>       what an edit of prompts did to them, by class
    excel-score-others-<preset>       the same of classes that nobody edited
    excel-score-pictures-<preset>     the images that changed most, and how to read the tables
    excel-compare-<preset>            two runs side by side: settings, scores, classes
    excel-compare-NAME-<preset>       the same drawn: classes, images
    excel-benchmark-<preset>          methods on the same images: scores, differences, costs
    excel-benchmark-NAME-<preset>     the same drawn: overview, classes by kind of label map, galleries
    excel-ablation-<preset>           the ablation's rows
    excel-ablation-chart-<preset>     the same with intervals, drawn
    excel-gallery-<preset>            pictures, headline numbers, what was skipped, and where the report is
    excel-<stage>-<preset>            pictures of a stage that ran alone (cams, refine, dynamic, predict); the images of dataset
    excel-texts-<preset>              every class's descriptions
    excel-texts-diff-<preset>         what changed in the knowledge base since an earlier run
    excel-attributes-<preset>         attributes: their nearest descriptions and the classes that use them
    excel-losses-<preset>             the loss curve of training
    excel-curve-<preset>              scores of the segmenters kept during training, with the published log's
    excel-curve-chart-<preset>        the same, drawn
    excel-knowledge-<preset>          the map of descriptions, attributes and classes
    excel-stages-<preset>             which stages this run built, which runs built the others, and where outputs lie
    excel-stages-<stage>-<preset>     the same up to a stage that ran alone
    excel-figure-<number>-<preset>    the paper's figures 4 to 6 of the run's own images
    excel-unchanged-<preset>          links to earlier artifacts, for what is as before

What a run has nothing for is left out.

body.py               an artifact before it is written: key, description, content
results_body.py       the table of results
run_bodies.py         those of a run, of a stage alone, and of the ablation
comparison_bodies.py  those of two runs side by side
study_bodies.py       those of the paper's tables and figures, the benchmark and the score
publish.py            which of them a flow writes
server.py             how they are written: each content once, pictures of the newest runs alone
"""
