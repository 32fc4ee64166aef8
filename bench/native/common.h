/* What both programs of the bench share: a clock, a timer heap, an epoll wrapper, small parsing helpers.
 *
 * Everything is single-threaded and lives in one translation unit per program, so the helpers are `static inline`
 * and keep no state of their own. Times are CLOCK_MONOTONIC nanoseconds in uint64_t (585 years: no wrap to think of).
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define NEVER UINT64_MAX

/* The id that ties an answer to its request: 16 hex digits behind this marker in the prompt, echoed in the answer's id.
 * It is how two answers swapped by a proxy are seen, although all answers have the same length. */
#define NONCE_MARK "[[nonce "
#define NONCE_LEN 16

static inline uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

static inline void *must(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

/* Ten thousand connections need ten thousand descriptors; the soft limit is 1,024 on most machines. */
static inline void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline uint64_t parse_number(const char *text, const char *what) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-') die("%s: not a number: %s", what, text);
    return value;
}

static inline double parse_decimal(const char *text, const char *what) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0)) die("%s: not a number: %s", what, text);
    return value;
}

/* epoll_pwait2 takes nanoseconds: with epoll_wait's milliseconds the pace itself would add up to 1 ms of jitter. */
static inline int wait_until(int epoll_fd, struct epoll_event *events, int max, uint64_t deadline, uint64_t now) {
    uint64_t left = deadline > now ? deadline - now : 0;
    struct timespec ts = {.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
    int n = epoll_pwait2(epoll_fd, events, max, deadline == NEVER ? NULL : &ts, NULL);
    if (n < 0 && errno != EINTR) die("epoll_pwait2: %s (Linux 5.11 or newer is needed)", strerror(errno));
    return n < 0 ? 0 : n;
}

/* Where the text stands, or NULL. As memmem, which goes byte by byte for short texts and took a sixteenth of the time of
 * a request of 1 KB; memchr takes thirty-two at once, and bodies hold few of what these texts begin with. */
static inline const char *find(const char *from, const char *end, const char *text, size_t len) {
    while ((size_t)(end - from) >= len) {
        from = memchr(from, *text, (size_t)(end - from) - len + 1);
        if (!from || memcmp(from, text, len) == 0) return from;
        from++;
    }
    return NULL;
}

/* A header line `name: value`? Returns the value, or NULL. `name` is lower case; lines are not NUL-terminated. */
static inline const char *header_value(const char *line, size_t len, const char *name) {
    size_t n = strlen(name);
    if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0) return NULL;
    const char *value = line + n + 1;
    while (value < line + len && (*value == ' ' || *value == '\t')) value++;
    return value;
}

/* Digits up to the end of the line. False for anything else: a length is never guessed. */
static inline bool parse_length(const char *value, const char *line_end, uint64_t *out) {
    uint64_t n = 0;
    const char *p = value;
    for (; p < line_end && *p >= '0' && *p <= '9'; p++) {
        if (n > UINT32_MAX) return false;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    if (p == value || p != line_end) return false;
    *out = n;
    return true;
}

/* ---- timers: a binary heap of intrusive nodes, earliest first; `pos` 0 means not queued ---- */

struct timer {
    uint64_t at;
    uint32_t pos;
};

struct timers {
    struct timer **heap; /* 1-based */
    uint32_t count, capacity;
};

static inline void timers_place(struct timers *ts, uint32_t pos, struct timer *t) {
    ts->heap[pos] = t;
    t->pos = pos;
}

static inline void timers_up(struct timers *ts, uint32_t pos) {
    struct timer *t = ts->heap[pos];
    for (; pos > 1 && ts->heap[pos / 2]->at > t->at; pos /= 2) timers_place(ts, pos, ts->heap[pos / 2]);
    timers_place(ts, pos, t);
}

static inline void timers_down(struct timers *ts, uint32_t pos) {
    struct timer *t = ts->heap[pos];
    for (uint32_t child; (child = pos * 2) <= ts->count; pos = child) {
        if (child < ts->count && ts->heap[child + 1]->at < ts->heap[child]->at) child++;
        if (ts->heap[child]->at >= t->at) break;
        timers_place(ts, pos, ts->heap[child]);
    }
    timers_place(ts, pos, t);
}

static inline void timers_cancel(struct timers *ts, struct timer *t) {
    uint32_t pos = t->pos;
    if (!pos) return;
    t->pos = 0;
    struct timer *last = ts->heap[ts->count--];
    if (last == t) return;
    timers_place(ts, pos, last);
    timers_up(ts, pos);
    timers_down(ts, last->pos);
}

static inline void timers_set(struct timers *ts, struct timer *t, uint64_t at) {
    timers_cancel(ts, t);
    if (ts->count + 2 > ts->capacity) {
        ts->capacity = ts->capacity ? ts->capacity * 2 : 1024;
        ts->heap = must(realloc(ts->heap, ts->capacity * sizeof *ts->heap));
    }
    t->at = at;
    timers_place(ts, ++ts->count, t);
    timers_up(ts, ts->count);
}

static inline struct timer *timers_first(const struct timers *ts) { return ts->count ? ts->heap[1] : NULL; }

#endif
