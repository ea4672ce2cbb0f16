"""What asking servers takes: requests, tokens and money, and the budget that ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from workbench.errors import BudgetError


@dataclass
class Spent:
    """Requests sent, those tried again included; tokens as the server counts them; money at the stated price."""

    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    money: float = 0.0


class Spending:
    """Of one session.

    Attributes:
        tokens: budget, prompts and answers together; None: no limit.
        money: budget, in the currency of the prices; None: no limit.
        spent: (server's model, purpose) -> what it took; purposes are ``answers``, ``draws``, ``probe`` and ``canaries``.
    """

    def __init__(self, tokens: int | None = None, money: float | None = None) -> None:
        self.tokens = tokens
        self.money = money
        self.spent: dict[tuple[str, str], Spent] = {}

    def of(self, model: str, purpose: str) -> Spent:
        """What one purpose took so far, to be added to."""
        return self.spent.setdefault((model, purpose), Spent())

    def total(self) -> Spent:
        """What everything took so far."""
        rows = self.spent.values()
        return Spent(
            sum(row.requests for row in rows),
            sum(row.prompt_tokens for row in rows),
            sum(row.new_tokens for row in rows),
            sum(row.money for row in rows),
        )

    def affordable(self, each: Sequence[tuple[int, float]]) -> int:
        """How many requests, from the first, fit into what is left of the budget; at least one.

        Args:
            each: tokens and money that each takes at most.

        Raises:
            BudgetError: not even the first fits.
        """
        self.reserve(*each[0])
        total = self.total()
        tokens, money = total.prompt_tokens + total.new_tokens, total.money
        for n, (more, price) in enumerate(each):
            tokens, money = tokens + more, money + price
            if tokens > (self.tokens or inf) or money > (self.money or inf):
                return n
        return len(each)

    def reserve(self, tokens: int, money: float) -> None:
        """Makes sure that what is about to be sent cannot exceed the budget.

        Args:
            tokens: that it takes at most.
            money: likewise.

        Raises:
            BudgetError: it might.
        """
        total = self.total()
        used = total.prompt_tokens + total.new_tokens
        if self.tokens is not None and used + tokens > self.tokens:
            raise BudgetError(
                f"the budget of {self.tokens:,} tokens is reached: {used:,} are spent, and the next prompt may take {tokens:,}"
            )
        if self.money is not None and total.money + money > self.money:
            raise BudgetError(
                f"the budget of {self.money:,.4g} is reached: {total.money:,.4g} are spent, and the next prompt may take "
                f"{money:,.4g}"
            )
