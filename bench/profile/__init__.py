"""Where a worker's time goes under the standard load: a flame graph, and µs a request by stage of its journey.

    make profile        or  python -m bench.profile [--kind sse] [--seconds 10] [--out DIR]

    stacks      samples of py-spy, read; whose function and module they are
    journey     to which stage of a request's journey they belong
    flame       the same as an SVG that needs no script
    __main__    the processes, and the report

The load runs twice: once to read what CPU a request takes, once under py-spy (a program of its own, installed into
build/), whose samples share that figure out. Only the thread that serves is looked at: the one that syncs the journal
mostly waits for the disk. Sampling stops the worker for moments, so its rate under it is not reported. A sample says
which line runs, not why: time in the kernel or in a C library belongs to the function that called it.
"""
