/* upstream: what a provider would be, at native speed. One thread, epoll, HTTP/1.1 keep-alive, no dependencies.
 *
 * Any request gets a fixed chat.completion of N bytes. A body with `"stream": true` gets server-sent events instead:
 * content chunks at a pace, then finish_reason, usage and [DONE] together in one write, then the zero chunk.
 * Response headers leave with the first content chunk, as hosted providers do.
 *
 * A request may override the pace by a directive anywhere in its prompt, so that one server plays every part of a
 * bench, through any proxy that leaves the prompt alone:
 *
 *     [[bench delay_ms=0 body_bytes=1000 chunks=50 chunk_bytes=200 interval_ms=10 ttft_ms=0]]
 *     [[nonce 0123456789abcdef]]     echoed in the answer's id
 *
 * Invariants: one exchange at a time per connection (pipelined bytes wait); one write per content chunk; the pace is
 * an absolute schedule, so a late chunk does not delay the following ones; EOF from the client aborts its stream.
 * Left out: TLS, chunked request bodies (411), Expect: 100-continue, half-closed clients, anything in the path.
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>

#define READ_SIZE (256 * 1024)
#define MAX_REQUEST (64u << 20)
#define MAX_PIPELINED (1u << 20)
#define MAX_EVENT (1u << 20)
#define BURST 8 /* chunks in a row of a stream without a pace, so that streams take turns */

struct pace {
    uint64_t delay_ms, body_bytes, chunks, chunk_bytes, interval_ms, ttft_ms;
};

struct buffer {
    char *data;
    size_t len, capacity;
};

enum phase { READING, WAITING_TO_ANSWER, STREAMING };

struct conn {
    struct timer timer; /* first member: a timer pointer is its connection's pointer */
    struct buffer in;   /* a partial or pipelined request; empty in the common case */
    struct buffer out;  /* what the socket did not take; nothing else is written while it is not empty */
    struct pace pace;
    uint64_t sent_chunks;
    char nonce[NONCE_LEN];
    int fd;
    enum phase phase;
    bool waits_for_write, close_after;
};

static struct pace defaults = {.body_bytes = 1000, .chunks = 50, .chunk_bytes = 200};
static struct timers timers;
static int epoll_fd;
static volatile sig_atomic_t stopping;
static char read_buffer[READ_SIZE];
static struct {
    uint64_t requests, streams, streams_done, aborted, refused, open, peak;
} stats;

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

/* ---- buffers ---- */

static void buffer_append(struct buffer *b, const char *data, size_t len) {
    if (b->len + len > b->capacity) {
        b->capacity = (b->len + len) * 2;
        b->data = must(realloc(b->data, b->capacity));
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

/* Frees rather than keeps: twelve thousand idle connections must not hold twelve thousand buffers. */
static void buffer_drop(struct buffer *b, size_t len) {
    b->len -= len;
    if (b->len) {
        memmove(b->data, b->data + len, b->len);
    } else {
        free(b->data);
        *b = (struct buffer){0};
    }
}

/* ---- answers, made once and patched with the nonce: single-threaded, and a partial write copies the rest ---- */

struct page {
    char *data;
    size_t len, nonce_at;
    uint64_t size; /* what it was made for */
};

static struct page json_page, event_page, tail_page;

static void page_make(struct page *p, uint64_t size, const char *text, size_t len) {
    p->data = must(realloc(p->data, len + 1));
    memcpy(p->data, text, len + 1);
    p->len = len;
    p->size = size;
    p->nonce_at = (size_t)(strstr(p->data, "\"chatcmpl-") - p->data) + strlen("\"chatcmpl-");
}

/* `before` + padding + `after`, padded to `size` bytes where the fixed parts leave room. */
static char *padded(const char *before, const char *after, uint64_t size, size_t *len) {
    size_t fixed = strlen(before) + strlen(after), pad = size > fixed ? size - fixed : 1;
    char *text = must(malloc(fixed + pad + 1)), *p = stpcpy(text, before);
    for (size_t i = 0; i < pad; i++) *p++ = i % 6 == 5 ? ' ' : 'x';
    stpcpy(p, after);
    *len = fixed + pad;
    return text;
}

static const struct page *json_answer(uint64_t size) {
    if (json_page.data && json_page.size == size) return &json_page;
    size_t body_len;
    char *body = padded(
        "{\"id\":\"chatcmpl-0000000000000000\",\"object\":\"chat.completion\",\"created\":1700000000,"
        "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"",
        "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":150,\"total_tokens\":350}}",
        size, &body_len);
    char *text;
    int len = asprintf(&text, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                       body_len, body);
    if (len < 0) die("out of memory");
    page_make(&json_page, size, text, (size_t)len);
    free(body);
    free(text);
    return &json_page;
}

/* One content event as one HTTP chunk; `size` counts the event (`data: …` and its blank line), not the framing. */
static const struct page *event_chunk(uint64_t size) {
    if (event_page.data && event_page.size == size) return &event_page;
    size_t event_len;
    char *event = padded(
        "data: {\"id\":\"chatcmpl-0000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
        "\"},\"finish_reason\":null}]}\n\n", size, &event_len);
    char *text;
    int len = asprintf(&text, "%zx\r\n%s\r\n", event_len, event);
    if (len < 0) die("out of memory");
    page_make(&event_page, size, text, (size_t)len);
    free(event);
    free(text);
    return &event_page;
}

static const struct page *stream_tail(void) {
    if (tail_page.data) return &tail_page;
    static const char *events =
        "data: {\"id\":\"chatcmpl-0000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
        "data: {\"id\":\"chatcmpl-usage\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"bench\",\"choices\":[],"
        "\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":150,\"total_tokens\":350}}\n\n"
        "data: [DONE]\n\n";
    char *text;
    int len = asprintf(&text, "%zx\r\n%s\r\n0\r\n\r\n", strlen(events), events);
    if (len < 0) die("out of memory");
    page_make(&tail_page, 0, text, (size_t)len);
    free(text);
    return &tail_page;
}

/* ---- connections ---- */

static void conn_close(struct conn *c) {
    if (c->phase != READING) stats.aborted++;
    timers_cancel(&timers, &c->timer);
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
    stats.open--;
}

static void watch_writes(struct conn *c, bool on) {
    if (c->waits_for_write == on) return;
    struct epoll_event ev = {.events = EPOLLIN | (on ? EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
    c->waits_for_write = on;
}

/* False: the peer is gone and the caller must close. */
static bool conn_write(struct conn *c, const char *data, size_t len) {
    ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN) return false;
        n = 0;
    }
    if ((size_t)n < len) {
        buffer_append(&c->out, data + n, len - (size_t)n);
        watch_writes(c, true);
    }
    return true;
}

static bool write_page(struct conn *c, const struct page *p) {
    memcpy(p->data + p->nonce_at, c->nonce, NONCE_LEN);
    return conn_write(c, p->data, p->len);
}

static bool write_first_chunk(struct conn *c) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        "transfer-encoding: chunked\r\n\r\n";
    static struct buffer joined; /* headers and first chunk in one write */
    const struct page *p = event_chunk(c->pace.chunk_bytes);
    joined.len = 0;
    buffer_append(&joined, head, sizeof head - 1);
    buffer_append(&joined, p->data, p->len);
    memcpy(joined.data + sizeof head - 1 + p->nonce_at, c->nonce, NONCE_LEN);
    return conn_write(c, joined.data, joined.len);
}

/* Writes all that is due. Chunk k is due at start + ttft + k x interval; the tail is due as chunk number `chunks`. */
static bool stream_step(struct conn *c, uint64_t due) {
    uint64_t interval = c->pace.interval_ms * NS_PER_MS;
    uint64_t now = now_ns();
    while (due <= now && !c->out.len) {
        if (c->sent_chunks == c->pace.chunks) {
            c->phase = READING;
            stats.streams_done++;
            return write_page(c, stream_tail());
        }
        bool ok = c->sent_chunks == 0 ? write_first_chunk(c) : write_page(c, event_chunk(c->pace.chunk_bytes));
        if (!ok) return false;
        c->sent_chunks++;
        if (interval)
            due += interval;
        else if (c->sent_chunks % BURST == 0)
            due = now + 1; /* the next turn of the loop */
    }
    if (c->out.len)
        c->timer.at = due; /* not queued, only remembered: on_writable goes on from here */
    else
        timers_set(&timers, &c->timer, due);
    return true;
}

static bool start_answer(struct conn *c, bool stream) {
    stats.requests++;
    if (stream) {
        stats.streams++;
        c->phase = STREAMING;
        c->sent_chunks = 0;
        return stream_step(c, now_ns() + c->pace.ttft_ms * NS_PER_MS);
    }
    if (c->pace.delay_ms) {
        c->phase = WAITING_TO_ANSWER;
        timers_set(&timers, &c->timer, now_ns() + c->pace.delay_ms * NS_PER_MS);
        return true;
    }
    return write_page(c, json_answer(c->pace.body_bytes));
}

/* ---- requests ---- */

static bool wants_stream(const char *body, size_t len) {
    static const char key[] = "\"stream\"";
    const char *end = body + len, *p = find(body, end, key, sizeof key - 1);
    if (!p) return false;
    for (p += sizeof key - 1; p < end && (*p == ' ' || *p == ':'); p++) {}
    return end - p >= 4 && memcmp(p, "true", 4) == 0;
}

static void apply_directive(struct pace *pace, const char *text, const char *end) {
    const struct {
        const char *name;
        uint64_t *value;
    } names[] = {
        {"delay_ms=", &pace->delay_ms},       {"body_bytes=", &pace->body_bytes},
        {"chunks=", &pace->chunks},           {"chunk_bytes=", &pace->chunk_bytes},
        {"interval_ms=", &pace->interval_ms}, {"ttft_ms=", &pace->ttft_ms},
    };
    while (text < end && *text != ']') {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            size_t n = strlen(names[i].name);
            if ((size_t)(end - text) <= n || memcmp(text, names[i].name, n) != 0) continue;
            uint64_t value = 0;
            for (text += n; text < end && *text >= '0' && *text <= '9' && value < UINT32_MAX; text++)
                value = value * 10 + (uint64_t)(*text - '0');
            *names[i].value = value;
            break;
        }
        while (text < end && *text != ' ' && *text != ']') text++;
        while (text < end && *text == ' ') text++;
    }
}

static void read_directives(struct conn *c, const char *body, size_t len) {
    static const char bench[] = "[[bench ";
    const size_t bench_len = sizeof bench - 1, nonce_len = sizeof NONCE_MARK - 1;
    const char *end = body + len, *p = body;
    c->pace = defaults;
    memset(c->nonce, '0', NONCE_LEN);
    while ((p = find(p, end, "[[", 2))) {
        size_t left = (size_t)(end - p);
        if (left >= nonce_len + NONCE_LEN && memcmp(p, NONCE_MARK, nonce_len) == 0)
            memcpy(c->nonce, p + nonce_len, NONCE_LEN);
        else if (left >= bench_len && memcmp(p, bench, bench_len) == 0)
            apply_directive(&c->pace, p + bench_len, end);
        p += 2;
    }
    if (c->pace.chunk_bytes > MAX_EVENT) c->pace.chunk_bytes = MAX_EVENT;
    if (c->pace.body_bytes > MAX_REQUEST) c->pace.body_bytes = MAX_REQUEST;
}

struct request {
    const char *body;
    uint64_t body_len;
    size_t total; /* head and body; 0 while incomplete */
};

/* 0, or the status of the refusal. */
static int parse_request(const char *data, size_t len, struct request *r) {
    *r = (struct request){0};
    const char *head_end = memmem(data, len, "\r\n\r\n", 4);
    if (!head_end) return len > 64 * 1024 ? 431 : 0;
    const char *line = memchr(data, '\n', len), *stop = head_end + 2;
    for (line++; line < stop;) {
        const char *eol = memchr(line, '\n', (size_t)(stop - line)), *value;
        size_t n = (size_t)(eol - line) - 1;
        char first = line[0] | 0x20;
        if (first == 'c' && (value = header_value(line, n, "content-length"))) {
            if (!parse_length(value, line + n, &r->body_len) || r->body_len > MAX_REQUEST) return 413;
        } else if (first == 't' && header_value(line, n, "transfer-encoding")) {
            return 411;
        }
        line = eol + 1;
    }
    size_t head_len = (size_t)(head_end - data) + 4;
    if (len - head_len < r->body_len) return 0;
    r->body = data + head_len;
    r->total = head_len + r->body_len;
    return 0;
}

static bool refuse(struct conn *c, int status) {
    char text[128];
    int n = snprintf(text, sizeof text, "HTTP/1.1 %d Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", status);
    stats.refused++;
    c->close_after = true;
    return conn_write(c, text, (size_t)n);
}

/* Answers the requests at the start of `data` until one is under way; returns the bytes consumed, or -1 to close. */
static ssize_t consume(struct conn *c, const char *data, size_t len) {
    size_t used = 0;
    while (c->phase == READING && !c->out.len && used < len) {
        struct request r;
        int status = parse_request(data + used, len - used, &r);
        if (status) return refuse(c, status) ? (ssize_t)len : -1;
        if (!r.total) break;
        read_directives(c, r.body, r.body_len);
        if (!start_answer(c, wants_stream(r.body, r.body_len))) return -1;
        used += r.total;
    }
    return (ssize_t)used;
}

static bool consume_pending(struct conn *c) {
    if (!c->in.len) return true;
    ssize_t used = consume(c, c->in.data, c->in.len);
    if (used > 0) buffer_drop(&c->in, (size_t)used);
    return used >= 0;
}

static bool on_readable(struct conn *c) {
    ssize_t n = recv(c->fd, read_buffer, sizeof read_buffer, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    if (c->in.len || c->phase != READING || c->out.len) {
        buffer_append(&c->in, read_buffer, (size_t)n);
        if (c->phase != READING && c->in.len > MAX_PIPELINED) return false;
        return c->in.len <= MAX_REQUEST + READ_SIZE && consume_pending(c);
    }
    ssize_t used = consume(c, read_buffer, (size_t)n);
    if (used < 0) return false;
    if (used < n) buffer_append(&c->in, read_buffer + used, (size_t)(n - used));
    return true;
}

static bool on_writable(struct conn *c) {
    ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN;
    buffer_drop(&c->out, (size_t)n);
    if (c->out.len) return true;
    watch_writes(c, false);
    if (c->close_after) return false;
    if (c->phase == STREAMING && !stream_step(c, c->timer.at)) return false;
    return consume_pending(c);
}

static bool on_timer(struct conn *c) {
    if (c->phase == STREAMING) {
        if (!stream_step(c, c->timer.at)) return false;
    } else {
        c->phase = READING;
        if (!write_page(c, json_answer(c->pace.body_bytes))) return false;
    }
    return consume_pending(c);
}

/* ---- main ---- */

static int listen_on(const char *host, uint16_t port, uint16_t *bound) {
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &addr.sin_addr) != 1) die("--host: not an IPv4 address: %s", host);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) || listen(fd, 4096)) die("listen: %s", strerror(errno));
    socklen_t len = sizeof addr;
    getsockname(fd, (struct sockaddr *)&addr, &len);
    *bound = ntohs(addr.sin_port);
    return fd;
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct conn *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        no_delay(fd);
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev)) die("epoll_ctl: %s", strerror(errno));
        if (++stats.open > stats.peak) stats.peak = stats.open;
    }
}

static void on_event(struct conn *c, uint32_t events) {
    bool alive = true;
    if (events & EPOLLOUT) alive = on_writable(c);
    if (alive && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) alive = on_readable(c);
    if (!alive || (c->close_after && !c->out.len)) conn_close(c);
}

static void run(int listener) {
    struct epoll_event events[512];
    while (!stopping) {
        struct timer *first = timers_first(&timers);
        int n = wait_until(epoll_fd, events, 512, first ? first->at : NEVER, first ? now_ns() : 0);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                accept_all(listener);
        }
        uint64_t now = timers.count ? now_ns() : 0;
        while ((first = timers_first(&timers)) && first->at <= now) {
            struct conn *c = (struct conn *)first;
            timers_cancel(&timers, first);
            if (!on_timer(c)) conn_close(c);
        }
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"host", 1, 0, 'h'},        {"port", 1, 0, 'p'},        {"delay-ms", 1, 0, 'd'}, {"body-bytes", 1, 0, 'b'},
        {"chunks", 1, 0, 'c'},      {"chunk-bytes", 1, 0, 's'}, {"ttft-ms", 1, 0, 't'},  {"interval-ms", 1, 0, 'i'},
        {0, 0, 0, 0},
    };
    const char *host = "127.0.0.1";
    uint64_t port = 0;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (o) {
        case 'h': host = optarg; break;
        case 'p': port = parse_number(optarg, "--port"); break;
        case 'd': defaults.delay_ms = parse_number(optarg, "--delay-ms"); break;
        case 'b': defaults.body_bytes = parse_number(optarg, "--body-bytes"); break;
        case 'c': defaults.chunks = parse_number(optarg, "--chunks"); break;
        case 's': defaults.chunk_bytes = parse_number(optarg, "--chunk-bytes"); break;
        case 't': defaults.ttft_ms = parse_number(optarg, "--ttft-ms"); break;
        case 'i': defaults.interval_ms = parse_number(optarg, "--interval-ms"); break;
        default: die("usage: upstream [--host H] [--port P] [--delay-ms D] [--body-bytes N] [--chunks C] "
                     "[--chunk-bytes B] [--interval-ms I] [--ttft-ms T]");
    }
    if (optind != argc || port > UINT16_MAX) die("upstream: unexpected argument or port");
    raise_descriptor_limit();
    /* No SA_RESTART: the wait must return so that the loop sees `stopping`. */
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    uint16_t bound;
    int listener = listen_on(host, (uint16_t)port, &bound);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev);
    printf("listening %u\n", bound);
    fflush(stdout);
    run(listener);
    printf("{\"requests\":%lu,\"streams\":%lu,\"streams_done\":%lu,\"aborted\":%lu,\"refused\":%lu,\"peak\":%lu}\n",
           stats.requests, stats.streams, stats.streams_done, stats.aborted, stats.refused, stats.peak);
    return 0;
}
