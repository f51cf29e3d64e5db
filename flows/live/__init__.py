"""Live tools around one labeller: a page in the browser, Label Studio's backend, CVAT's function.

labeller.py       photo and class names → label maps, models kept between calls
page.py           `excel serve`: a Gradio page (extra `serve`)
label_studio.py   `excel serve --for label-studio`: an ML backend by HTTP
cvat_function.py  a function for `cvat-cli … --function-module flows.live.cvat_function` (extra `cvat`)
"""
