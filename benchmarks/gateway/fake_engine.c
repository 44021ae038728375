// A fake vLLM OpenAI server that uses little CPU: one thread, epoll, no allocation per token.
//   fake_engine PORT
// The text of the prompt determines the response, because proxies rewrite headers and drop fields (LiteLLM
// drops "user"):  fake:N:GAP_US:DELAY_US:ALIGNED
// N tokens, GAP_US between tokens (0: all at once, still one write per event), DELAY_US before the
// first byte, ALIGNED=1: tokens leave on a common grid of GAP_US (as the steps of one engine do).
// Each token event carries its number and send time: " tok0007@0001234567890123" (CLOCK_MONOTONIC ns).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#define MAXFD 8192
#define INCAP (256 * 1024)
typedef struct { char *in; int inlen, stream, busy, n, next, aligned, started; int64_t gap, delay; unsigned gen; } conn;
typedef struct { int64_t due; int fd; unsigned gen; } ent;
static conn C[MAXFD];
static ent H[MAXFD * 8];
static int hn, ep, tfd;
static const char *JHEAD = "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 23:00:00 GMT\r\nserver: uvicorn\r\n";
static char json_resp[4096]; static int json_len;
static int64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void push(int64_t due, int fd) {
    if (hn >= MAXFD * 8) { fprintf(stderr, "heap full\n"); exit(1); }
    int i = hn++; ent e = {due, fd, C[fd].gen};
    while (i && H[(i - 1) / 2].due > due) { H[i] = H[(i - 1) / 2]; i = (i - 1) / 2; }
    H[i] = e;
}
static ent pop(void) {
    ent r = H[0], e = H[--hn]; int i = 0;
    for (;;) { int c = 2 * i + 1; if (c >= hn) break; if (c + 1 < hn && H[c + 1].due < H[c].due) c++; if (H[c].due >= e.due) break; H[i] = H[c]; i = c; }
    H[i] = e; return r;
}
static int put(int fd, const char *b, int n) {
    while (n) {
        int k = send(fd, b, n, MSG_NOSIGNAL);
        if (k < 0) { if (errno == EAGAIN) { struct pollfd p = {fd, POLLOUT, 0}; poll(&p, 1, 1000); continue; } return -1; }
        b += k; n -= k;
    }
    return 0;
}
static int event(int fd, const char *body, int n) { // one HTTP chunk, one write
    char b[1024]; int k = sprintf(b, "%x\r\n", n); memcpy(b + k, body, n); memcpy(b + k + n, "\r\n", 2); return put(fd, b, k + n + 2);
}
#define CH "data: {\"id\":\"chatcmpl-0f8d5c7e4b1a4c0e9d3f2a6b7c8d9e0f\",\"object\":\"chat.completion.chunk\",\"created\":1763683200,\"model\":\"fake-model\",\"choices\":["
static void token(int fd, conn *c) {
    char b[512]; int i = c->next++;
    int k = sprintf(b, CH "{\"index\":0,\"delta\":{\"content\":\" tok%04d@%016lld\"},\"logprobs\":null,\"finish_reason\":%s,\"token_ids\":null}]}\n\n", i, (long long)now(), i == c->n - 1 ? "\"length\"" : "null");
    event(fd, b, k);
}
static void begin(int fd, conn *c) {
    char b[512]; int k = sprintf(b, "%scontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n", JHEAD);
    put(fd, b, k);
    k = sprintf(b, CH "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null}\n\n");
    event(fd, b, k); c->started = 1;
}
static void finish(int fd, conn *c) {
    char b[512]; int k = sprintf(b, CH "],\"usage\":{\"prompt_tokens\":171,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n", 171 + c->n, c->n);
    event(fd, b, k); event(fd, "data: [DONE]\n\n", 14); put(fd, "0\r\n\r\n", 5); c->busy = 0;
}
static void handle(int fd);
static void step(int fd, conn *c) { // the timer of this connection is due
    if (!c->stream) { put(fd, json_resp, json_len); c->busy = 0; handle(fd); return; }
    if (!c->started) begin(fd, c);
    do token(fd, c); while (!c->gap && c->next < c->n);
    if (c->next >= c->n) { finish(fd, c); handle(fd); return; }
    int64_t t = now(); push(c->aligned ? (t / c->gap + 1) * c->gap : t + c->gap, fd);
}
static void drop(int fd) { C[fd].gen++; C[fd].busy = 0; C[fd].inlen = 0; close(fd); }
static void small(int fd, const char *ct, const char *body) { char b[4096]; int k = sprintf(b, "%scontent-type: %s\r\ncontent-length: %zu\r\n\r\n%s", JHEAD, ct, strlen(body), body); put(fd, b, k); }
static void handle(int fd) { // handle the complete requests in the buffer, while idle
    conn *c = &C[fd];
    while (!c->busy && c->inlen) {
        c->in[c->inlen] = 0;
        char *e = strstr(c->in, "\r\n\r\n"); if (!e) return;
        char *b = e + 4; long need; *e = 0;
        char *cl = strcasestr(c->in, "\r\ncontent-length:"), *te = strcasestr(c->in, "\r\ntransfer-encoding: chunked");
        *e = '\r';
        if (te) { char *z = !strncmp(b, "0\r\n\r\n", 5) ? b - 2 : strstr(b, "\r\n0\r\n\r\n"); if (!z) return; need = z + 7 - c->in; }
        else need = b - c->in + (cl ? atol(cl + 17) : 0);
        if (need > INCAP - 1) { drop(fd); return; }
        if (c->inlen < need) return;
        char save = c->in[need]; c->in[need] = 0;
        if (!strncmp(c->in, "GET ", 4)) {
            char *p = c->in + 4;
            if (!strncmp(p, "/v1/models", 10)) small(fd, "application/json", "{\"object\":\"list\",\"data\":[{\"id\":\"fake-model\",\"object\":\"model\",\"created\":1763683200,\"owned_by\":\"vllm\",\"root\":\"fake-model\",\"parent\":null,\"max_model_len\":32768}]}");
            else if (!strncmp(p, "/metrics", 8)) small(fd, "text/plain; version=0.0.4", "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"fake-model\"} 0.0\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"fake-model\"} 0.0\n# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"fake-model\"} 0.0\n");
            else if (!strncmp(p, "/health", 7)) small(fd, "text/plain", "");
            else small(fd, "application/json", "{}");
        } else {
            long n = 64, gap = 0, delay = 0; int al = 0; char *f = strstr(b, "fake:");
            if (f) sscanf(f, "fake:%ld:%ld:%ld:%d", &n, &gap, &delay, &al);
            c->stream = strstr(b, "\"stream\":true") || strstr(b, "\"stream\": true");
            c->n = n; c->gap = gap * 1000; c->delay = delay * 1000; c->next = 0; c->aligned = al && gap; c->started = 0; c->busy = 1; c->gen++;
        }
        c->in[need] = save; memmove(c->in, c->in + need, c->inlen - need); c->inlen -= need;
        if (c->busy) { int64_t t = now() + c->delay; push(c->aligned ? (t / c->gap + 1) * c->gap : t, fd); return; }
    }
}
int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    char txt[1200] = ""; for (int i = 0; i < 64; i++) sprintf(txt + strlen(txt), " word%04d ok", i);
    char body[3000]; int bl = sprintf(body, "{\"id\":\"chatcmpl-0f8d5c7e4b1a4c0e9d3f2a6b7c8d9e0f\",\"object\":\"chat.completion\",\"created\":1763683200,\"model\":\"fake-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%.640s END\",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":[],\"reasoning\":null},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null,\"token_ids\":null}],\"service_tier\":null,\"system_fingerprint\":null,\"usage\":{\"prompt_tokens\":171,\"total_tokens\":235,\"completion_tokens\":64,\"prompt_tokens_details\":null},\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"kv_transfer_params\":null}", txt);
    json_len = sprintf(json_resp, "%scontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s", JHEAD, bl, body);
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1; setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 1024)) { perror("bind"); return 1; }
    ep = epoll_create1(0); tfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event ev = {EPOLLIN, {.fd = ls}}; epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev);
    ev.data.fd = tfd; epoll_ctl(ep, EPOLL_CTL_ADD, tfd, &ev);
    struct epoll_event E[512]; int64_t armed = 0;
    for (;;) {
        int64_t t = now();
        while (hn && H[0].due <= t) { ent e = pop(); if (C[e.fd].gen == e.gen && C[e.fd].busy) step(e.fd, &C[e.fd]); }
        int tmo = -1;
        if (hn) {
            int64_t d = H[0].due;
            if (d <= now()) tmo = 0;
            else if (d != armed) { struct itimerspec s = {{0, 0}, {d / 1000000000, d % 1000000000}}; timerfd_settime(tfd, TFD_TIMER_ABSTIME, &s, 0); armed = d; }
        }
        int n = epoll_wait(ep, E, 512, tmo);
        for (int i = 0; i < n; i++) {
            int fd = E[i].data.fd;
            if (fd == tfd) { uint64_t x; if (read(tfd, &x, 8) < 0) {} armed = 0; continue; }
            if (fd == ls) {
                int k = accept4(ls, 0, 0, SOCK_NONBLOCK); if (k < 0) continue; if (k >= MAXFD) { close(k); continue; }
                setsockopt(k, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); conn *c = &C[k]; if (!c->in) c->in = malloc(INCAP + 1);
                c->inlen = c->busy = 0; c->gen++; ev.events = EPOLLIN; ev.data.fd = k; epoll_ctl(ep, EPOLL_CTL_ADD, k, &ev); continue;
            }
            conn *c = &C[fd];
            int k = c->inlen < INCAP ? recv(fd, c->in + c->inlen, INCAP - c->inlen, 0) : 0;
            if (k == 0 || (k < 0 && errno != EAGAIN)) { drop(fd); continue; }
            if (k > 0) { c->inlen += k; handle(fd); }
        }
    }
}
