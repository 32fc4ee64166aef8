/* load: what callers would be, at native speed. One thread, epoll, HTTP/1.1 keep-alive; one JSON object on stdout.
 *
 *   closed loop   --connections C   each sends its next request when the last is answered: shows capacity
 *   open loop     --rate R          requests are due on a schedule, whether or not the target keeps up, and latency
 *                                   counts from the *scheduled* time: queueing is not hidden
 *   hold          --hold N          opens N streams (without --stream: N idle connections) and keeps them open
 *
 * Every answer is checked: status, length, the nonce it must echo (two answers swapped have the same length), and for a
 * stream the number of events, `data: [DONE]` and the zero chunk. What fails is counted by kind, and is not among the
 * latencies of the good ones. stderr says `measuring`, `held N` and `measured` as these moments come, so that a driver
 * can read the target's CPU time over just that window.
 *
 * What counts, after the warm-up: answers that complete before the end (closed loop), or that were due before the end
 * (open loop, which then waits up to --drain seconds; what is still unanswered is an error, its age a latency).
 */
#define _GNU_SOURCE
#include "arrivals.h"
#include "common.h"
#include "histogram.h"
#include "request.h"
#include "response.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>

#define READ_SIZE (256 * 1024)
#define MAX_CONNECTING 128 /* a burst above a listener's backlog loses SYNs, and each costs a second */
#define MAX_CONNECT_FAILURES 100 /* in a row: about a second of nobody listening */
#define CONNECT_RETRY_NS (10 * NS_PER_MS)
#define CONNECT_PATIENCE_NS (30 * NS_PER_S)
#define SWEEP_NS (100 * NS_PER_MS) /* how often time-outs are looked for */

enum mode { CLOSED_LOOP, OPEN_LOOP, HOLD };
enum state { UNCONNECTED, CONNECTING, IDLE, BUSY };
enum error { STATUS, SHORT_BODY, RESET, TERMINATOR, FRAMING, CROSSED, EVENTS, TIMEOUT, CONNECT, UNFINISHED, ENDED, ERRORS };
static const char *const error_names[ERRORS] = {
    "status", "short_body", "reset", "terminator", "framing", "crossed", "events", "timeout", "connect", "unfinished", "ended"};

struct conn {
    int fd;
    enum state state;
    bool waits_for_write, asked, settled; /* settled: held open, or given up (--hold) */
    uint64_t due, last_seen, last_event, nonce;
    size_t written;
    struct response response;
};

static struct {
    const char *path;
    enum mode mode;
    uint64_t connections, requests, expect_bytes, expect_events, interval_ns, timeout_ns;
    double rate, seconds, warmup, drain;
    bool stream, fixed_arrivals;
} opt = {.connections = 64, .seconds = 3, .drain = 5, .timeout_ns = 60 * NS_PER_S};

static struct {
    uint64_t ok, errors[ERRORS], bytes, events, terminated, reconnects;
    struct histogram latency, ttft, lag, lateness;
} stats;

static struct { /* indices of connections */
    uint32_t *of, count;
} idle, unconnected;

static struct sockaddr_in target;
static struct conn *conns;
static char read_buffer[READ_SIZE];
static int epoll_fd;
static uint64_t issued, finished, busy, connecting, connect_failures, connect_after, settled;
static uint64_t window_from = NEVER, window_to = NEVER, next_due = NEVER;
static bool measuring, over;
static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

static bool counts(const struct conn *c) {
    if (opt.mode == OPEN_LOOP) return c->due >= window_from && c->due < window_to;
    return measuring && !over;
}

static uint32_t index_of(const struct conn *c) { return (uint32_t)(c - conns); }

/* ---- connections ---- */

static void conn_close(struct conn *c) {
    if (c->state == CONNECTING) connecting--;
    if (c->state == BUSY) busy--;
    for (uint32_t i = 0; c->state == IDLE && i < idle.count; i++) {
        if (idle.of[i] != index_of(c)) continue;
        idle.of[i] = idle.of[--idle.count];
        break;
    }
    close(c->fd);
    response_reset(&c->response);
    c->state = UNCONNECTED;
    if (opt.mode != HOLD || !c->asked) unconnected.of[unconnected.count++] = index_of(c);
}

static void conn_connect(struct conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    no_delay(c->fd);
    c->state = CONNECTING;
    c->waits_for_write = true;
    connecting++;
    if (connect(c->fd, (struct sockaddr *)&target, sizeof target) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.u32 = index_of(c)};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev)) die("epoll_ctl: %s", strerror(errno));
}

static void connect_some(uint64_t now) {
    if (over || now < connect_after) return;
    while (unconnected.count && connecting < MAX_CONNECTING) conn_connect(&conns[unconnected.of[--unconnected.count]]);
}

static void conn_settle(struct conn *c) {
    settled += !c->settled;
    c->settled = true;
}

static void conn_fail(struct conn *c, enum error kind) {
    finished++;
    conn_settle(c);
    if (counts(c)) stats.errors[kind]++;
    conn_close(c);
}

static void watch_writes(struct conn *c, bool on) {
    if (c->waits_for_write == on) return;
    struct epoll_event ev = {.events = EPOLLIN | (on ? EPOLLOUT : 0u), .data.u32 = index_of(c)};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
    c->waits_for_write = on;
}

/* ---- requests ---- */

static void conn_send(struct conn *c) {
    request_stamp(c->nonce);
    ssize_t n = send(c->fd, request.data + c->written, request.len - c->written, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return conn_fail(c, RESET);
    if (n > 0) c->written += (size_t)n;
    watch_writes(c, c->written < request.len);
}

static void issue(struct conn *c, uint64_t due, uint64_t now) {
    response_reset(&c->response);
    c->state = BUSY;
    c->asked = true;
    c->due = due;
    c->last_seen = now;
    c->last_event = 0;
    c->nonce = ++issued;
    c->written = 0;
    busy++;
    conn_send(c);
}

static void park(struct conn *c) {
    c->state = IDLE;
    idle.of[idle.count++] = index_of(c);
}

/* A connection is free: what does it do next? Nothing before all are connected and the clock runs (window_from). */
static void conn_free(struct conn *c, uint64_t now) {
    if (opt.mode == HOLD && !c->asked) return issue(c, now, now);
    if (opt.mode == OPEN_LOOP && backlog.count) return issue(c, backlog_pop(), now);
    bool more = !opt.requests || issued < opt.requests;
    if (opt.mode == CLOSED_LOOP && window_from != NEVER && more && !over) return issue(c, now, now);
    park(c);
}

static void send_due(uint64_t now) {
    while (next_due <= now && next_due < window_to) {
        if (next_due >= window_from) histogram_add(&stats.lateness, now - next_due);
        if (idle.count)
            issue(&conns[idle.of[--idle.count]], next_due, now);
        else
            backlog_push(next_due);
        next_due += gap_to_next(opt.rate, opt.fixed_arrivals);
        now = now_ns();
    }
    if (next_due >= window_to) next_due = NEVER;
}

/* ---- responses ---- */

static bool nonce_matches(const struct conn *c) {
    char expected[NONCE_LEN];
    if (!request.nonce_at) return true;
    format_nonce(c->nonce, expected);
    return memmem(c->response.probe, c->response.probe_len, expected, NONCE_LEN) != NULL;
}

/* ERRORS when the answer is good. */
static enum error verify(const struct conn *c) {
    const struct response *r = &c->response;
    if (r->status != 200) return STATUS;
    if (!nonce_matches(c)) return CROSSED;
    if (opt.stream && (!r->chunked || !response_ends_with_done(r))) return TERMINATOR;
    if (opt.stream && opt.expect_events && r->events != opt.expect_events) return EVENTS;
    if (opt.expect_bytes && r->body_len != opt.expect_bytes) return SHORT_BODY;
    return ERRORS;
}

static void explain_once(const struct conn *c, enum error kind) {
    static bool said[ERRORS];
    const struct response *r = &c->response;
    if (said[kind]) return;
    said[kind] = true;
    fprintf(stderr, "first %s: status %u, %lu bytes, %u events: %.*s\n", error_names[kind], r->status, r->body_len,
            r->events, (int)r->probe_len, r->probe);
}

static void on_complete(struct conn *c, uint64_t now) {
    if (opt.mode == HOLD && opt.stream) return conn_fail(c, ENDED);
    enum error kind = verify(c);
    bool closing = c->response.close_after;
    if (kind != ERRORS) explain_once(c, kind);
    finished++;
    busy--;
    if (counts(c)) {
        stats.terminated += opt.stream && response_ends_with_done(&c->response);
        if (kind == ERRORS) {
            stats.ok++;
            stats.bytes += c->response.body_len;
            histogram_add(&stats.latency, now - c->due);
        } else {
            stats.errors[kind]++;
        }
    }
    conn_settle(c);
    c->state = UNCONNECTED; /* neither busy nor idle: conn_free decides */
    if (!closing) return conn_free(c, now);
    stats.reconnects++;
    conn_close(c);
}

static void on_events(struct conn *c, uint32_t count, uint64_t now) {
    if (counts(c)) {
        stats.events += count;
        if (!c->last_event)
            histogram_add(&stats.ttft, now - c->due);
        else if (opt.interval_ns)
            histogram_add(&stats.lag, now - c->last_event > opt.interval_ns ? now - c->last_event - opt.interval_ns : 0);
    }
    conn_settle(c);
    c->last_event = now;
}

static void on_closed(struct conn *c, bool reset) {
    const struct response *r = &c->response;
    if (c->state == IDLE) {
        if (opt.mode == HOLD) return conn_fail(c, RESET);
        stats.reconnects++;
        return conn_close(c);
    }
    enum error kind = r->part == HEAD || reset ? RESET : r->chunked ? TERMINATOR : SHORT_BODY;
    explain_once(c, kind);
    conn_fail(c, kind);
}

static void on_readable(struct conn *c) {
    ssize_t n = recv(c->fd, read_buffer, sizeof read_buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return on_closed(c, n < 0);
    if (c->state != BUSY) return conn_fail(c, FRAMING); /* bytes nobody asked for */
    uint64_t now = c->last_seen = now_ns();
    uint32_t before = c->response.events;
    size_t used = response_feed(&c->response, read_buffer, (size_t)n, opt.stream);
    if (c->response.events != before) on_events(c, c->response.events - before, now);
    if (c->response.part == MALFORMED || used < (size_t)n) {
        explain_once(c, FRAMING);
        return conn_fail(c, FRAMING);
    }
    if (c->response.part == COMPLETE) on_complete(c, now);
}

static void on_connected(struct conn *c, uint64_t now) {
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        stats.errors[CONNECT] += measuring && !over;
        if (++connect_failures > MAX_CONNECT_FAILURES) die("connect: %s", strerror(error));
        connect_after = now + CONNECT_RETRY_NS;
        return conn_close(c);
    }
    connecting--;
    connect_failures = 0;
    watch_writes(c, false);
    conn_free(c, now);
}

static void on_event(struct conn *c, uint32_t events, uint64_t now) {
    if (c->state == UNCONNECTED) return; /* closed by an earlier event of the same batch */
    if (c->state == CONNECTING) return on_connected(c, now);
    if (events & EPOLLOUT && c->state == BUSY) conn_send(c);
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP) && c->state != UNCONNECTED) on_readable(c);
}

static void sweep_timeouts(uint64_t now) {
    for (uint64_t i = 0; i < opt.connections; i++) {
        struct conn *c = &conns[i];
        if (c->state == BUSY && now > c->last_seen + opt.timeout_ns) conn_fail(c, TIMEOUT);
    }
}

/* ---- the run ---- */

static void poll_once(uint64_t deadline) {
    struct epoll_event events[512];
    int n = wait_until(epoll_fd, events, 512, deadline, now_ns());
    uint64_t now = now_ns();
    for (int i = 0; i < n; i++) on_event(&conns[events[i].data.u32], events[i].events, now);
}

static void connect_all(void) {
    uint64_t deadline = now_ns() + CONNECT_PATIENCE_NS, now;
    while ((now = now_ns()), (unconnected.count || connecting) && !interrupted) {
        if (now > deadline) die("only %u of %lu connections after 30 s", idle.count, opt.connections);
        connect_some(now);
        poll_once(now + CONNECT_RETRY_NS);
    }
}

static void start_clock(void) {
    uint64_t now = now_ns();
    bool endless = opt.requests && opt.seconds == 0;
    window_from = now + (uint64_t)(opt.warmup * 1e9);
    window_to = endless || opt.mode == HOLD ? NEVER : window_from + (uint64_t)(opt.seconds * 1e9);
    if (opt.mode == OPEN_LOOP) next_due = now + gap_to_next(opt.rate, opt.fixed_arrivals);
    for (uint32_t waiting = opt.mode == CLOSED_LOOP ? idle.count : 0; waiting; waiting--)
        conn_free(&conns[idle.of[--idle.count]], now);
}

static void announce(const char *what) {
    fprintf(stderr, "%s\n", what);
    fflush(stderr);
}

static void watch_clock(uint64_t now) {
    static bool said_held;
    if (!measuring && now >= window_from) {
        measuring = true;
        announce("measuring");
    }
    if (opt.mode == HOLD && !said_held && settled >= opt.connections) {
        fprintf(stderr, "held %lu\n", busy + idle.count);
        said_held = true;
        window_to = now + (uint64_t)(opt.seconds * 1e9);
    }
    bool enough = opt.requests && finished >= opt.requests;
    if (measuring && !over && (now >= window_to || enough || interrupted)) {
        over = true;
        if (now < window_to || window_to == NEVER) window_to = now;
        announce("measured");
    }
}

static void run(void) {
    uint64_t next_sweep = 0;
    if (opt.mode != HOLD) connect_all();
    start_clock();
    for (;;) {
        uint64_t now = now_ns();
        watch_clock(now);
        if (over && (opt.mode != OPEN_LOOP || interrupted || (!busy && !backlog.count))) return;
        if (over && now > window_to + (uint64_t)(opt.drain * 1e9)) return;
        if (now >= next_sweep) {
            sweep_timeouts(now);
            next_sweep = now + SWEEP_NS;
        }
        connect_some(now);
        send_due(now);
        uint64_t deadline = measuring ? window_to : window_from;
        if (over || next_sweep < deadline) deadline = next_sweep;
        poll_once(next_due < deadline ? next_due : deadline);
    }
}

/* What an open loop left unanswered counts with the age it reached: a lower bound, but not a silence. */
static void count_unfinished(void) {
    uint64_t now = now_ns();
    if (opt.mode != OPEN_LOOP) return;
    while (backlog.count) {
        uint64_t due = backlog_pop();
        if (due < window_from) continue;
        histogram_add(&stats.latency, now - due);
        stats.errors[UNFINISHED]++;
    }
    for (uint64_t i = 0; i < opt.connections; i++) {
        struct conn *c = &conns[i];
        if (c->state != BUSY || !counts(c)) continue;
        histogram_add(&stats.latency, now - c->due);
        stats.errors[UNFINISHED]++;
    }
}

static void print_result(void) {
    static const char *const modes[] = {"closed", "open", "hold"};
    double seconds = (double)(window_to - window_from) / 1e9;
    printf("{\"mode\":\"%s\",\"stream\":%s,\"connections\":%lu,\"rate\":%.1f,\"seconds\":%.6f,\"ok\":%lu,\"rps\":%.1f,",
           modes[opt.mode], opt.stream ? "true" : "false", opt.connections, opt.rate, seconds, stats.ok,
           seconds > 0 ? (double)stats.ok / seconds : 0.0);
    printf("\"issued\":%lu,\"finished\":%lu,\"held\":%lu,\"reconnects\":%lu,\"bytes\":%lu,\"events\":%lu,"
           "\"terminated\":%lu,\"errors\":{", issued, finished, opt.mode == HOLD ? busy + idle.count : 0,
           stats.reconnects, stats.bytes, stats.events,
           stats.terminated);
    for (int i = 0; i < ERRORS; i++) printf("%s\"%s\":%lu", i ? "," : "", error_names[i], stats.errors[i]);
    printf("},");
    histogram_print("latency", &stats.latency);
    putchar(',');
    histogram_print("ttft", &stats.ttft);
    putchar(',');
    histogram_print("lag", &stats.lag);
    putchar(',');
    histogram_print("lateness", &stats.lateness);
    printf("}\n");
}

/* ---- arguments ---- */

static void usage(void) {
    die("usage: load HOST PORT PATH [--body FILE] [--header 'name: value']… [--stream] [--connections C]\n"
        "  [--seconds S] [--warmup S] [--requests N]   closed loop; N requests instead of S seconds\n"
        "  [--rate R] [--arrivals poisson|fixed] [--seed N] [--drain S]   open loop at R requests a second\n"
        "  [--hold N]   open N streams and keep them open for S seconds\n"
        "  [--expect-bytes N] [--expect-events N] [--interval-ms I] [--timeout S]");
}

static void parse_arguments(int argc, char **argv) {
    enum { BODY_FILE = 1, HEADER, STREAM, CONNECTIONS, SECONDS, WARMUP, REQUESTS, RATE, ARRIVALS, SEED, DRAIN, HOLD_N, BYTES,
           EVENT_COUNT, INTERVAL, TIMEOUT_S };
    static const struct option options[] = {
        {"body", 1, 0, BODY_FILE},     {"header", 1, 0, HEADER},       {"stream", 0, 0, STREAM},
        {"connections", 1, 0, CONNECTIONS}, {"seconds", 1, 0, SECONDS}, {"warmup", 1, 0, WARMUP},
        {"requests", 1, 0, REQUESTS},  {"rate", 1, 0, RATE},           {"arrivals", 1, 0, ARRIVALS},
        {"seed", 1, 0, SEED},          {"drain", 1, 0, DRAIN},         {"hold", 1, 0, HOLD_N},
        {"expect-bytes", 1, 0, BYTES}, {"expect-events", 1, 0, EVENT_COUNT}, {"interval-ms", 1, 0, INTERVAL},
        {"timeout", 1, 0, TIMEOUT_S},  {0, 0, 0, 0},
    };
    char *headers = must(strdup("content-type: application/json\r\n"));
    const char *body_path = NULL;
    bool seconds_given = false;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (o) {
        case BODY_FILE: body_path = optarg; break;
        case HEADER: add_header(&headers, optarg); break;
        case STREAM: opt.stream = true; break;
        case CONNECTIONS: opt.connections = parse_number(optarg, "--connections"); break;
        case SECONDS: opt.seconds = parse_decimal(optarg, "--seconds"), seconds_given = true; break;
        case WARMUP: opt.warmup = parse_decimal(optarg, "--warmup"); break;
        case REQUESTS: opt.requests = parse_number(optarg, "--requests"); break;
        case RATE: opt.rate = parse_decimal(optarg, "--rate"), opt.mode = OPEN_LOOP; break;
        case ARRIVALS: opt.fixed_arrivals = strcmp(optarg, "fixed") == 0; break;
        case SEED: arrivals_rng = parse_number(optarg, "--seed") * 2654435769u + 1; break;
        case DRAIN: opt.drain = parse_decimal(optarg, "--drain"); break;
        case HOLD_N: opt.connections = parse_number(optarg, "--hold"), opt.mode = HOLD; break;
        case BYTES: opt.expect_bytes = parse_number(optarg, "--expect-bytes"); break;
        case EVENT_COUNT: opt.expect_events = parse_number(optarg, "--expect-events"); break;
        case INTERVAL: opt.interval_ns = parse_number(optarg, "--interval-ms") * NS_PER_MS; break;
        case TIMEOUT_S: opt.timeout_ns = (uint64_t)(parse_decimal(optarg, "--timeout") * 1e9); break;
        default: usage();
    }
    if (argc - optind != 3 || !opt.connections || (opt.mode == OPEN_LOOP && opt.rate <= 0)) usage();
    if (opt.requests && !seconds_given) opt.seconds = 0;
    opt.path = argv[optind + 2];
    uint64_t port = parse_number(argv[optind + 1], "PORT");
    target = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (!port || port > UINT16_MAX || inet_pton(AF_INET, argv[optind], &target.sin_addr) != 1)
        die("HOST PORT: an IPv4 address and a port are needed, not %s %s", argv[optind], argv[optind + 1]);
    char authority[64];
    snprintf(authority, sizeof authority, "%s:%lu", argv[optind], port);
    request_build(authority, opt.path, headers, body_path);
    free(headers);
}

int main(int argc, char **argv) {
    parse_arguments(argc, argv);
    raise_descriptor_limit();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = must(calloc(opt.connections, sizeof *conns));
    idle.of = must(calloc(opt.connections, sizeof *idle.of));
    unconnected.of = must(calloc(opt.connections, sizeof *unconnected.of));
    for (uint64_t i = opt.connections; i--;) {
        conns[i].fd = -1;
        unconnected.of[unconnected.count++] = (uint32_t)i;
    }
    run();
    count_unfinished();
    print_result();
    return 0;
}
