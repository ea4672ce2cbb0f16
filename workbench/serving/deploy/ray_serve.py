"""What this bundle answers, as a deployment of Ray Serve: `serve run deploy.ray_serve:app` in the folder of the bundle."""

from pathlib import Path

from workbench.serving.ray_serve import application

app = application(Path(__file__).resolve().parent.parent)
