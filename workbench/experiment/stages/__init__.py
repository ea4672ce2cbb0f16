"""The stages: pure steps whose output is stored under the digest of everything that defines it.

A stage's key covers its name and version, its settings with the versions of components and libraries, the kind of
arithmetic where models compute, the digests of sources it reads, and the *keys* of the stages it reads. Keys never
depend on computed output, so all of them are known before anything runs.
"""

from __future__ import annotations

from workbench.experiment.stages.answers import (
    NO_PASSAGES,
    Answer,
    Answers,
    ClosedAnswers,
    OpenAnswers,
    Prompted,
    Repeated,
    SelectiveAnswers,
    Threshold,
)
from workbench.experiment.stages.base import (
    Stage,
)
from workbench.experiment.stages.indexes import (
    AnalyzedPassages,
    DenseIndex,
    Embeddings,
    Encoder,
    TextIndex,
)
from workbench.experiment.stages.passages import (
    Passages,
    PassageTable,
)
from workbench.experiment.stages.rankings import (
    DenseRanking,
    ExpandedRanking,
    FusedRanking,
    Questions,
    RankingStage,
    Reranked,
    Rewriting,
    TextRanking,
    asked,
)
from workbench.experiment.stages.scores import (
    AnswerScores,
    RankingScores,
    Score,
    ScoresStage,
)
from workbench.experiment.stages.training import (
    Adapter,
    TrainedEmbedder,
    TrainedOnRankings,
    TrainedReranker,
    TrainingProgress,
    left_out,
    training_progress,
)

__all__ = [
    "NO_PASSAGES",
    "Adapter",
    "AnalyzedPassages",
    "Answer",
    "AnswerScores",
    "Answers",
    "ClosedAnswers",
    "DenseIndex",
    "DenseRanking",
    "Embeddings",
    "Encoder",
    "ExpandedRanking",
    "FusedRanking",
    "OpenAnswers",
    "PassageTable",
    "Passages",
    "Prompted",
    "Questions",
    "RankingScores",
    "RankingStage",
    "Repeated",
    "Reranked",
    "Rewriting",
    "Score",
    "ScoresStage",
    "SelectiveAnswers",
    "Stage",
    "TextIndex",
    "TextRanking",
    "Threshold",
    "TrainedEmbedder",
    "TrainedOnRankings",
    "TrainedReranker",
    "TrainingProgress",
    "asked",
    "left_out",
    "training_progress",
]
