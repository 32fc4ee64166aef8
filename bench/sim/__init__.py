"""sim: a provider that behaves, and misbehaves, exactly as it is told.

One process, no model behind it. It speaks the OpenAI and Anthropic wire formats well enough for their SDKs, and
lets a caller choose, request by request, how the answer fails: which byte is the last, which never comes.

    __main__   the command line            app        which behaviour, which dialect, which answer
    server     sockets and HTTP parsing    play       an answer and its behaviour, onto a socket, in time
    shape      faults inside the stream    faults     the behaviours: names, meanings, parsing
    script     rules read from a file      text       what the answers say, and how tokens are counted
    openai/    one dialect                 anthropic  the other
    wire       Request, Reply, Event       log        what was seen, for tests to ask about

Two invariants make it useful as a witness. An answer is *data* (a head and an iterator of events) until `play`
puts it on the socket, so each fault is written once for every endpoint. And what it says is a pure function of
the request and the behaviour, so two runs differ only in ids and clock fields.

Left out on purpose: HTTP/2, WebSocket, stored objects, and any check of a model's name (every name answers).
"""
