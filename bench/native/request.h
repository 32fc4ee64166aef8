/* The one request that is sent over and over: head and body in one buffer, with a fresh nonce stamped in each time. */
#ifndef BENCH_REQUEST_H
#define BENCH_REQUEST_H

#include "common.h"

#define FILE_STEP (64 * 1024)

static struct {
    char *data;
    size_t len, nonce_at; /* 0: no nonce in the body */
} request;

static inline void format_nonce(uint64_t nonce, char *out) {
    for (int i = NONCE_LEN - 1; i >= 0; i--, nonce >>= 4) out[i] = "0123456789abcdef"[nonce & 15];
}

/* All connections share the buffer: stamp before each write, also before the rest of a partial one. */
static inline void request_stamp(uint64_t nonce) {
    if (request.nonce_at) format_nonce(nonce, request.data + request.nonce_at);
}

static inline char *read_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) die("--body %s: %s", path, strerror(errno));
    char *data = NULL;
    size_t n;
    *len = 0;
    do {
        data = must(realloc(data, *len + FILE_STEP));
        n = fread(data + *len, 1, FILE_STEP, f);
        *len += n;
    } while (n);
    fclose(f);
    return data;
}

static inline void request_build(const char *authority, const char *path, const char *headers, const char *body_path) {
    size_t body_len = 0;
    char *body = body_path ? read_file(body_path, &body_len) : NULL, *head;
    int head_len = asprintf(&head, "%s %s HTTP/1.1\r\nhost: %s\r\n%scontent-length: %zu\r\n\r\n", body ? "POST" : "GET",
                            path, authority, headers, body_len);
    if (head_len < 0) die("out of memory");
    request.len = (size_t)head_len + body_len;
    request.data = must(malloc(request.len));
    memcpy(request.data, head, (size_t)head_len);
    if (body) memcpy(request.data + head_len, body, body_len);
    const char *mark = memmem(request.data, request.len, NONCE_MARK, sizeof NONCE_MARK - 1);
    if (mark) request.nonce_at = (size_t)(mark - request.data) + sizeof NONCE_MARK - 1;
    if (request.nonce_at + NONCE_LEN > request.len) die("--body: the nonce needs %d digits", NONCE_LEN);
    free(head);
    free(body);
}

static inline void add_header(char **headers, const char *line) {
    char *longer;
    if (asprintf(&longer, "%s%s\r\n", *headers, line) < 0) die("out of memory");
    free(*headers);
    *headers = longer;
}

#endif
