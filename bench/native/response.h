/* One HTTP/1.1 response, fed as it arrives in pieces of any size: status, framing, body length, SSE events.
 *
 * Nothing of the body is stored but its first bytes (where the nonce is) and its last ones (where `[DONE]` is), so ten
 * thousand open streams cost ten thousand small structs. Left out: 1xx answers, trailers' meaning, bodies ended by close.
 */
#ifndef BENCH_RESPONSE_H
#define BENCH_RESPONSE_H

#include "common.h"

#define MAX_HEAD (32 * 1024)
#define PROBE 96

static const char SSE_DONE[] = "data: [DONE]\n\n";
#define SSE_DONE_LEN (sizeof SSE_DONE - 1)

enum part { HEAD, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, COMPLETE, MALFORMED };

struct response {
    enum part part;
    bool chunked, close_after, line_is_empty, event_open;
    uint32_t status, events, probe_len, head_len;
    uint64_t left; /* of the body (BODY), of this chunk (CHUNK_DATA), or the size read so far (CHUNK_SIZE) */
    uint64_t body_len;
    char *head; /* only while a head is partial */
    char probe[PROBE], last[SSE_DONE_LEN];
};

static inline void response_reset(struct response *r) {
    free(r->head);
    *r = (struct response){.line_is_empty = true};
}

static inline bool response_ends_with_done(const struct response *r) {
    return r->body_len >= SSE_DONE_LEN && memcmp(r->last, SSE_DONE, SSE_DONE_LEN) == 0;
}

/* An event ends at the first empty line after a `data` line; comments alone make none. */
static inline void response_scan_events(struct response *r, const char *data, size_t len) {
    for (const char *end = data + len; data < end;) {
        if (r->line_is_empty && *data != '\n' && *data != '\r') {
            r->line_is_empty = false;
            if (*data == 'd') r->event_open = true;
        }
        const char *eol = memchr(data, '\n', (size_t)(end - data));
        if (!eol) return;
        if (r->line_is_empty && r->event_open) {
            r->events++;
            r->event_open = false;
        }
        r->line_is_empty = true;
        data = eol + 1;
    }
}

static inline void response_take_body(struct response *r, const char *data, size_t len, bool sse) {
    if (r->probe_len < PROBE) {
        size_t n = len < PROBE - r->probe_len ? len : PROBE - r->probe_len;
        memcpy(r->probe + r->probe_len, data, n);
        r->probe_len += (uint32_t)n;
    }
    r->body_len += len;
    if (!sse) return;
    if (len >= SSE_DONE_LEN) {
        memcpy(r->last, data + len - SSE_DONE_LEN, SSE_DONE_LEN);
    } else {
        memmove(r->last, r->last + len, SSE_DONE_LEN - len);
        memcpy(r->last + SSE_DONE_LEN - len, data, len);
    }
    response_scan_events(r, data, len);
}

static inline void response_parse_head(struct response *r, const char *head, size_t len) {
    bool sized = false;
    r->part = MALFORMED;
    if (len < 16 || memcmp(head, "HTTP/1.1 ", 9) != 0) return;
    r->status = (uint32_t)((head[9] - '0') * 100 + (head[10] - '0') * 10 + (head[11] - '0'));
    const char *stop = head + len - 2, *line = (const char *)memchr(head, '\n', len) + 1;
    while (line < stop) {
        const char *eol = memchr(line, '\n', (size_t)(stop - line)), *value;
        size_t n = (size_t)(eol - line) - 1;
        char first = line[0] | 0x20;
        if (first == 'c' && (value = header_value(line, n, "content-length"))) {
            if (sized || !parse_length(value, line + n, &r->left)) return;
            sized = true;
        } else if (first == 't' && (value = header_value(line, n, "transfer-encoding"))) {
            r->chunked = strncasecmp(value, "chunked", 7) == 0;
        } else if (first == 'c' && (value = header_value(line, n, "connection"))) {
            r->close_after = strncasecmp(value, "close", 5) == 0;
        }
        line = eol + 1;
    }
    if (sized == r->chunked) return; /* both is smuggling, neither has no end to wait for */
    if (r->chunked) r->left = 0;
    r->part = r->chunked ? CHUNK_SIZE : r->left ? BODY : COMPLETE;
}

/* Consumes head bytes; a head split over reads is collected until it is whole. */
static inline size_t response_feed_head(struct response *r, const char *data, size_t len) {
    if (!r->head) {
        const char *end = memmem(data, len, "\r\n\r\n", 4);
        if (end) {
            size_t n = (size_t)(end - data) + 4;
            response_parse_head(r, data, n);
            return n;
        }
        r->head = must(malloc(MAX_HEAD));
    }
    size_t before = r->head_len, n = len < MAX_HEAD - before ? len : MAX_HEAD - before;
    memcpy(r->head + before, data, n);
    r->head_len += (uint32_t)n;
    const char *end = memmem(r->head, r->head_len, "\r\n\r\n", 4);
    if (!end) {
        if (r->head_len == MAX_HEAD) r->part = MALFORMED;
        return n;
    }
    size_t head_len = (size_t)(end - r->head) + 4;
    response_parse_head(r, r->head, head_len);
    return head_len - before;
}

static inline int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline size_t response_feed_chunk_size(struct response *r, const char *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        int digit = hex_digit(data[i]);
        if (digit >= 0 && r->left <= UINT32_MAX) {
            r->left = r->left * 16 + (uint64_t)digit;
        } else if (data[i] == '\n') {
            r->part = r->left ? CHUNK_DATA : TRAILER;
            r->line_is_empty = r->left ? r->line_is_empty : true;
            return i + 1;
        } else if (data[i] != '\r') {
            r->part = MALFORMED;
            return len;
        }
    }
    return len;
}

/* CHUNK_END is the CRLF behind a chunk's data; TRAILER ends at its empty line. */
static inline size_t response_feed_line(struct response *r, const char *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (data[i] == '\r') continue;
        if (data[i] != '\n') {
            if (r->part == CHUNK_END) {
                r->part = MALFORMED;
                return len;
            }
            r->line_is_empty = false;
            continue;
        }
        if (r->part == CHUNK_END)
            r->part = CHUNK_SIZE;
        else if (r->line_is_empty)
            r->part = COMPLETE;
        r->line_is_empty = r->part == TRAILER ? true : r->line_is_empty;
        return i + 1;
    }
    return len;
}

/* Feeds bytes until the response is COMPLETE or MALFORMED; returns how many were consumed. */
static inline size_t response_feed(struct response *r, const char *data, size_t len, bool sse) {
    size_t used = 0;
    while (used < len && r->part < COMPLETE) {
        const char *p = data + used;
        size_t left = len - used, n = left < r->left ? left : (size_t)r->left;
        switch (r->part) {
        case HEAD: used += response_feed_head(r, p, left); break;
        case CHUNK_SIZE: used += response_feed_chunk_size(r, p, left); break;
        case CHUNK_END:
        case TRAILER: used += response_feed_line(r, p, left); break;
        default: /* BODY, CHUNK_DATA */
            response_take_body(r, p, n, sse);
            used += n;
            if (!(r->left -= n)) r->part = r->part == BODY ? COMPLETE : CHUNK_END;
        }
    }
    return used;
}

#endif
