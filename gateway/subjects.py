"""Whose a request is, in the terms in which limits are told: from its key, its route and its model to a Subject.

It stands apart because there are two who ask: the pipeline, for requests, and control, for the question what a request
would meet. So the answer of `gateway why` is of the very buckets that requests take from. Left out: what varies between
requests that are alike, the end user and the provider (`limiter/rules.py`).
"""

from gateway.identity.identify import Principal
from gateway.limiter.rules import Subject
from gateway.routing.match import Route


def subject_of(principal: Principal, route: Route, model: str = "", entry: str = "") -> Subject:
    """Requests of a principal on a route for a model, which this entry answers to; "" where only the path is known."""
    return Subject(
        principal.key_id,
        principal.org,
        principal.team,
        principal.user,
        principal.role,
        principal.labels,
        model,
        entry,
        route.name,
        route.data_class(principal.data_class),
        principal.allowance,
    )
