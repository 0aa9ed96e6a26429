"""For Apache Airflow: a refusal fails a task at once, a fault is retried.

    from safegen.airflow import GuardOperator, refusals_fail

    GuardOperator(task_id="admitted", sources=["/data/adult"], policy="training") >> train

    @task(retries=3)
    @refusals_fail()
    def train(): ...

Needs Airflow 3, or 2.x: pip install apache-airflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from safegen.errors import MissingExtra, SafegenError

try:
    from airflow.sdk import BaseOperator
    from airflow.sdk.exceptions import AirflowFailException
except ImportError:
    try:
        from airflow.exceptions import AirflowFailException
        from airflow.models.baseoperator import BaseOperator
    except ImportError:
        raise MissingExtra("safegen.airflow needs Airflow: pip install apache-airflow") from None

__all__ = ["GuardOperator", "refusals_fail"]


@contextmanager
def refusals_fail() -> Iterator[None]:
    """Inside, what trying again cannot mend fails the task without a retry: a refusal, data that
    does not verify, a policy or a call that is wrong. Also a decorator, below `@task`."""
    try:
        yield
    except SafegenError as error:
        if error.exit_code == 1:  # a fault: the next try may succeed
            raise
        raise AirflowFailException(str(error)) from None


class GuardOperator(BaseOperator):  # type: ignore[misc]
    """A task that succeeds when a policy admits the sources together, and fails without a retry
    when it does not. Gives the decision, as JSON, to the tasks after it."""

    template_fields: ClassVar[Sequence[str]] = ("sources", "policy", "ledger")

    def __init__(
        self,
        *,
        sources: str | Sequence[str],
        policy: str = "training",
        ledger: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.sources, self.policy, self.ledger = sources, policy, ledger

    def execute(self, context: Any) -> dict[str, Any]:
        from safegen.access import guard

        sources = [self.sources] if isinstance(self.sources, str) else list(self.sources)
        with refusals_fail():
            return guard(*sources, policy=self.policy, ledger=self.ledger).to_json()
