"""The stages: pure steps from documents and questions to scores, each importing only those before it.

``passages < indexes < writers < questions < rankings < reranking < shots < training < answers < scores | merging``;
`examples` holds what they compute of a train split. What a stage is: `workbench.store.stage`.
"""
