"""How fast the gateway is beside nginx on the same core, told so that it can be trusted and repeated.

`python -m bench.speed` starts a native upstream and the targets (nginx, the gateway, a plain aiohttp proxy), drives
them in turn with a native load generator, and writes raw data and a report to `bench/results/`. The method is in
bench/README.md; what makes a run void is in verdict.py; the two C programs are in bench/native/.

    histogram, procfs     what is read: distributions, CPU, memory, descriptors
    launch, native        what is started: pinned processes that never outlive the driver; upstream and load
    targets, workload     what is compared, and what is asked of it
    certificates, nginx   what TLS is spoken with, and who speaks it beside the target
    sections, memory      the measurements, target by target inside each repeat
    tls                   the same with TLS on both sides
    verdict, report       medians with their range, the goals, the words
    page, plot            the same with charts, as one HTML file
    stored                a result read back from its folder
"""
