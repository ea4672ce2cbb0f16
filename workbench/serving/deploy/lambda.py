"""The function of AWS Lambda: what this bundle answers, behind API Gateway. It is called `deploy.lambda.handler`."""

from pathlib import Path

from workbench.serving.gateway import function

HERE = Path(__file__).resolve().parent
handler = function(HERE.parent, HERE / "lambda.yaml")
