"""Whether memory stays flat over millions of requests: `python -m bench.memory --requests 10000000`.

One worker with four limits, journal and metrics is asked in a closed loop, as in `bench.speed`. After every step (a few
seconds) its memory, descriptors and garbage collections are read, and the memory of the control process, which reads
the journal behind it. A straight line through the readings, the first tenth of the requests left out, says what a
million requests cost; the journal is kept small by its own settings, and goes with the run.

    inside      what is put into the gateway's processes: a count of their collections
    drive       the gateway, the steps, the readings
    judge       the line and the findings: pure
    report      raw.json, report.md and report.html
"""
