"""A Celery application whose parent process uses a client before it forks; run, it sends the tasks."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from tests.support.forking import CHILDREN, PATIENT
from tests.support.forking.calls import meet, use_all

app = Celery("forking", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True


@app.task
def use() -> tuple[int, str]:
    return meet(Path(os.environ["MEETING"])), use_all()


if __name__ == "__main__":
    sent = [app.send_task("tests.support.forking.queue.use") for _ in range(CHILDREN)]
    for task in sent:
        print(*task.get(timeout=3 * PATIENT))
else:
    use_all()
