// A closed-loop load generator for OpenAI chat completions (plain HTTP/1.1, keep-alive, loopback).
//   load PORT json|stream C MAXREQ MAXSEC N GAP_US DELAY_US ALIGNED RAMP_MS KEY
// Every response is parsed completely (status, chunked or content-length framing) and checked: JSON responses
// must contain the whole text, streams must contain tokens 0..N-1 in order, the usage event and [DONE].
// Prints one JSON object. Times in microseconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define BODY (512 * 1024)
typedef struct { int fd, busy, hdr, chunked, st, reads; long left, clen; char h[8192]; int hl; char *b; int bl, scan, tok; int64_t t0, tfirst, ttok, last, start_at; } conn;
typedef struct { double *v; long n, cap; } vec;
static vec TTFB, TTFT, TOT, GAP, LAG;
static void add(vec *v, double x) { if (v->n == v->cap) { v->cap = v->cap ? v->cap * 2 : 4096; v->v = realloc(v->v, v->cap * sizeof(double)); } v->v[v->n++] = x; }
static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }
static int64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static int port, stream, nc, n_tok, inflight; static long maxreq, started, done, errs, chunks, reads, bytes; static char *req; static int reql; static int64_t tend; static uint64_t hash0; static long hash_diff; static int len0;
static char firsterr[600]; static int ep;
static void fail(conn *c, const char *w) { if (!errs++) snprintf(firsterr, sizeof firsterr, "%s tok=%d bl=%d hdr=%.160s body=%.200s", w, c->tok, c->bl, c->h, c->b + (c->bl > 200 ? c->bl - 200 : 0)); }
static void connect_(conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0); int one = 1; setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (void *)&a, sizeof a)) { perror("connect"); exit(1); }
    struct epoll_event ev = {EPOLLIN, {.ptr = c}}; epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
}
static void send_(conn *c) {
    if (c->fd < 0) connect_(c);
    c->busy = 1; c->hdr = c->chunked = c->st = c->hl = c->bl = c->scan = c->tok = c->reads = 0; c->left = c->clen = -1; c->tfirst = c->ttok = c->last = 0; started++; inflight++;
    c->t0 = now(); if (send(c->fd, req, reql, MSG_NOSIGNAL) != reql) { perror("send"); exit(1); }
}
static void next(conn *c) { if (started < maxreq && now() < tend) send_(c); }
static void body(conn *c, const char *p, int n, int64_t t) {
    if (c->bl + n > BODY - 1) { fail(c, "too long"); return; }
    memcpy(c->b + c->bl, p, n); c->bl += n; c->b[c->bl] = 0;
    if (!stream) return;
    char *q;
    while ((q = memmem(c->b + c->scan, c->bl - c->scan, " tok", 4)) && q + 25 <= c->b + c->bl) {
        int i = atoi(q + 4); int64_t s = atoll(q + 9);
        if (i != c->tok || q[8] != '@') fail(c, "token order"); c->tok++;
        add(&LAG, (t - s) / 1e3);
        if (c->last) add(&GAP, (t - c->last) / 1e3); else c->ttok = t;
        c->last = t; c->scan = q + 25 - c->b;
    }
}
static void finish(conn *c, int64_t t, int close_) {
    int ok = 1; inflight--; c->busy = 0;
    if (strncmp(c->h, "HTTP/1.1 200", 12)) { fail(c, "status"); ok = 0; }
    else if (stream) {
        if (c->tok != n_tok) { fail(c, "tokens"); ok = 0; }
        else if (!memmem(c->b, c->bl, "\"usage\":{", 9)) { fail(c, "usage"); ok = 0; }
        else { char *d = memmem(c->b + (c->bl > 40 ? c->bl - 40 : 0), c->bl > 40 ? 40 : c->bl, "data: [DONE]", 12); if (!d) { fail(c, "done"); ok = 0; } }
    } else if (!memmem(c->b, c->bl, "word0000", 8) || !memmem(c->b, c->bl, "word0044", 8) || !memmem(c->b, c->bl, " END\"", 5)) { fail(c, "text"); ok = 0; }
    uint64_t h = 1469598103934665603ULL; for (int i = 0; i < c->bl; i++) { h = (h ^ (unsigned char)c->b[i]) * 1099511628211ULL; if (stream && c->b[i] == '@') i += 16; }
    if (ok) {
        if (!done) { hash0 = h; len0 = c->bl; } else if (h != hash0) hash_diff++;
        done++; bytes += c->bl; reads += c->reads; add(&TTFB, (c->tfirst - c->t0) / 1e3); add(&TOT, (t - c->t0) / 1e3); if (stream) { add(&TTFT, (c->ttok - c->t0) / 1e3); chunks += n_tok + 3; }
    }
    if (close_) { close(c->fd); c->fd = -1; }
    next(c);
}
static void feed(conn *c, char *p, int n, int64_t t) {
    if (!c->busy) { fail(c, "unasked bytes"); return; }
    if (!c->tfirst) c->tfirst = t; c->reads++;
    while (n) {
        if (!c->hdr) {
            int k = n < 8000 - c->hl ? n : 8000 - c->hl; if (!k) { fail(c, "header too long"); exit(1); }
            int old = c->hl; memcpy(c->h + c->hl, p, k); c->hl += k; c->h[c->hl] = 0;
            char *e = strstr(c->h, "\r\n\r\n"); if (!e) { p += k; n -= k; continue; }
            int hend = e + 4 - c->h; int used = hend - old; *(e + 2) = 0; c->hl = hend; p += used; n -= used; c->hdr = 1;
            if (strcasestr(c->h, "\r\ntransfer-encoding: chunked")) c->chunked = 1;
            else { char *l = strcasestr(c->h, "\r\ncontent-length:"); c->clen = c->left = l ? atol(l + 17) : -1; if (!c->left) { finish(c, t, 0); return; } }
            c->st = 0; if (c->chunked) c->left = 0; continue;
        }
        if (!c->chunked) { int k = c->left >= 0 && c->left < n ? c->left : n; body(c, p, k, t); p += k; n -= k; if (c->left >= 0 && !(c->left -= k)) { finish(c, t, !!strcasestr(c->h, "\r\nconnection: close")); if (n) fail(c, "extra"); return; } continue; }
        switch (c->st) { // 0 size line, 1 data, 2 CRLF after data, 3 trailer
        case 0: { char ch = *p++; n--; if (ch == '\n') { c->st = c->left ? 1 : 3; c->clen = 0; } else if (ch != '\r') { int d = ch <= '9' ? ch - '0' : (ch | 32) - 'a' + 10; if (d < 0 || d > 15) fail(c, "chunk size"); c->left = c->left * 16 + d; } break; }
        case 1: { int k = c->left < n ? c->left : n; body(c, p, k, t); p += k; n -= k; if (!(c->left -= k)) c->st = 2; break; }
        case 2: { char ch = *p++; n--; if (ch == '\n') { c->st = 0; c->left = 0; } break; }
        case 3: { char ch = *p++; n--; if (ch == '\n') { finish(c, t, !!strcasestr(c->h, "\r\nconnection: close")); if (n) fail(c, "extra"); return; } break; }
        }
    }
}
static void show(const char *k, vec *v) {
    qsort(v->v, v->n, sizeof(double), cmp); double s = 0; for (long i = 0; i < v->n; i++) s += v->v[i];
#define P(x) (v->n ? v->v[(long)((v->n - 1) * x)] : 0)
    printf(",\"%s\":{\"n\":%ld,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", k, v->n, v->n ? s / v->n : 0, P(.5), P(.9), P(.99), P(1));
}
int main(int argc, char **a) {
    if (argc < 12) return 2;
    port = atoi(a[1]); stream = a[2][0] == 's'; nc = atoi(a[3]); maxreq = atol(a[4]); double maxsec = atof(a[5]); n_tok = atoi(a[6]); int ramp = atoi(a[10]);
    char txt[700]; memset(txt, 0, sizeof txt); for (int i = 0; strlen(txt) < 600; i++) sprintf(txt + strlen(txt), "Sentence %d of a prompt. ", i);
    char b[2000]; int bl = sprintf(b, "{\"model\":\"fake-model\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant who answers briefly.\"},{\"role\":\"user\",\"content\":\"%s fake:%s:%s:%s:%s\"}],\"max_tokens\":64,\"temperature\":0.7,\"top_p\":0.95%s}", txt, a[6], a[7], a[8], a[9], stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    req = malloc(4096); reql = sprintf(req, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: loadgen/1\r\nAccept: */*\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", port, a[11], bl, b);
    ep = epoll_create1(0); conn *c = calloc(nc, sizeof(conn)); srand(7);
    int64_t T0 = now();
    for (int i = 0; i < nc; i++) { c[i].b = malloc(BODY); c[i].start_at = ramp ? (int64_t)(rand() / (RAND_MAX + 1.0) * ramp * 1e6) : 0; connect_(&c[i]); }
    usleep(50000); T0 = now(); tend = T0 + (int64_t)(maxsec * 1e9); int64_t hard = tend + 15000000000LL, tl = T0;
    int waiting = nc; struct epoll_event E[512]; static char buf[262144];
    for (;;) {
        int64_t t = now();
        if (waiting) for (int i = 0; i < nc; i++) if (c[i].start_at >= 0 && t - T0 >= c[i].start_at) { c[i].start_at = -1; waiting--; next(&c[i]); }
        if (!waiting && !inflight) break;
        if (t > hard) { snprintf(firsterr, sizeof firsterr, "%d still running 15 s after the end", inflight); errs += inflight; break; }
        int n = epoll_wait(ep, E, 512, waiting ? 1 : 100);
        for (int i = 0; i < n; i++) {
            conn *k = E[i].data.ptr; int r = recv(k->fd, buf, sizeof buf, MSG_DONTWAIT); int64_t t = now();
            if (r > 0) { feed(k, buf, r, t); tl = t; }
            else if (r == 0 || errno != EAGAIN) { if (k->busy) { if (k->hdr && !k->chunked && k->left < 0) finish(k, t, 1); else { inflight--; k->busy = 0; fail(k, "closed"); close(k->fd); k->fd = -1; next(k); } } else { close(k->fd); k->fd = -1; } }
        }
    }
    double w = (tl - T0) / 1e9;
    printf("{\"done\":%ld,\"errors\":%ld,\"wall\":%.4f,\"rps\":%.1f,\"chunks\":%ld,\"cps\":%.1f,\"reads\":%ld,\"len\":%d,\"hash\":\"%016llx\",\"hash_diff\":%ld", done, errs, w, done / w, chunks, chunks / w, reads, len0, (unsigned long long)hash0, hash_diff);
    show("ttfb", &TTFB); show("total", &TOT); if (stream) { show("ttft", &TTFT); show("gap", &GAP); show("lag", &LAG); }
    for (char *q = firsterr; *q; q++) if (*q == '"' || *q == '\\' || (unsigned char)*q < 32) *q = '\'';
    printf(",\"first_error\":\"%s\"}\n", firsterr); return 0;
}
