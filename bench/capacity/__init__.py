"""How many workers, nodes, gigabytes a load takes, from coefficients that were measured and a check that doubts them.

    python -m bench.capacity --calibrate                        measure this machine: two minutes
    python -m bench.capacity --rps 10000 --stream-share 0.6     what that takes, by the coefficients stored last
    python -m bench.capacity --rps 10000 --check                run a small part of it, and compare

    coefficients   what was measured, when and where; stored in bench/results/coefficients.json
    plan           mix × coefficients → workers, nodes, memory, disk: pure arithmetic
    measure        the native load, for calibration and for the check

The model is linear: a request costs so much, a KB of its prompt so much, a stream, a chunk; that it is not more wrong
than a fifth is what `--check` is for. It knows one gateway version on one kind of core with the bench's settings
(a key with four limits, metrics and journal on; plain HTTP; no request log). It leaves out TLS and whatever policy or
inspection an operator adds: those are calibrated by calibrating with them (`--gateway-config`).
"""
