"""Load as callers bring it: mixed prompts, streams, agents, a noisy neighbour, a failing provider, hours on end.

`python -m bench.load PROFILE` starts the simulated provider and a gateway, drives both with Locust (bench/locust/), the
provider alone first, and says by its exit status whether what the gateway added is within the thresholds. It is for
behaviour under a realistic mix; how fast the gateway is, to the microsecond, is `bench.speed`'s to say, since Locust
and the simulated provider are Python themselves: a few hundred requests a second, times to a millisecond.

    prompts, sse    what is asked, and how a stream is read: pure, and all that Locust's side needs
    refusals        what a 429 must say: pure, likewise
    orders          what the runner tells a profile, through the environment
    profiles        the table: load, provider's behaviour, thresholds
    stage           the processes: providers, gateway, the sampling of its memory
    drive           one run of Locust, and its outcome
    judge           outcomes → findings
"""
