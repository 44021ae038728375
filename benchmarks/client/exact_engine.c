// An engine with exact timing, to check the accuracy of benchmarks: one thread, epoll, a nanosecond timer.
//   exact_engine PORT TTFT_US GAP_US LOG      (cc -O2 -o exact_engine exact_engine.c)
// The first token of a stream is sent TTFT_US after the last byte of the request was read, and each further token GAP_US
// later, up to "max_tokens" (or "max_completion_tokens"). Each token has its own deadline, so that delays do not accumulate.
// LOG has a line per response: the CLOCK_MONOTONIC microseconds at which the request was read and each token was sent.
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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
enum { MOST_FDS = 2048, ROOM = 1 << 18, MOST_TOKENS = 4096 };
typedef struct {
    char *in;
    int length, tokens, sent, busy;
    int64_t read_at, due, at[MOST_TOKENS];
} connection;
static connection *all[MOST_FDS];
static int64_t ttft, gap;
static FILE *told;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void put(int fd, const char *bytes, int n) {
    while (n > 0) {
        int k = send(fd, bytes, n, MSG_NOSIGNAL);
        if (k > 0) { bytes += k; n -= k; continue; }
        if (k < 0 && errno == EAGAIN) { struct pollfd p = {fd, POLLOUT, 0}; poll(&p, 1, 1000); continue; }
        return;
    }
}
static void event(int fd, const char *body) { // one HTTP chunk, one write
    char b[1024];
    int n = strlen(body), k = sprintf(b, "%x\r\n", n);
    memcpy(b + k, body, n);
    memcpy(b + k + n, "\r\n", 2);
    put(fd, b, k + n + 2);
}
static void whole(int fd, const char *body) {
    char b[2048];
    put(fd, b, sprintf(b, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body));
}
static long number_after(const char *text, const char *name) {
    const char *found = strstr(text, name);
    if (!found) return 0;
    found += strlen(name);
    while (*found == ' ' || *found == ':') found++;
    return atol(found);
}
static int words(const char *body) { // one token per word: count the spaces in the last "content" or "prompt"
    const char *text = strstr(body, "\"content\"");
    if (!text) text = strstr(body, "\"prompt\"");
    int n = 1;
    for (const char *p = text ? text + 12 : body; *p && *p != '"'; p++) n += *p == ' ';
    return n;
}
#define CHUNK "data: {\"id\":\"chatcmpl-0f8d5c7e4b1a4c0e9d3f2a6b7c8d9e0f\",\"object\":\"%s\",\"created\":1763683200,\"model\":\"exact\",\"choices\":["
static int prompt_tokens[MOST_FDS], is_chat[MOST_FDS];
static void chunk(int fd, const char *rest) {
    char b[900];
    snprintf(b, sizeof b, CHUNK "%s\n\n", is_chat[fd] ? "chat.completion.chunk" : "text_completion", rest);
    event(fd, b);
}
static void start(int fd, const char *body) {
    connection *c = all[fd];
    long n = number_after(body, "\"max_tokens\"");
    if (!n) n = number_after(body, "\"max_completion_tokens\"");
    c->tokens = n < 1 ? 16 : n > MOST_TOKENS ? MOST_TOKENS : n;
    prompt_tokens[fd] = words(body);
    if (!strstr(body, "\"stream\": true") && !strstr(body, "\"stream\":true")) {
        char b[900];
        sprintf(b, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1763683200,\"model\":\"exact\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\" a\"},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":1,\"total_tokens\":%d}}", prompt_tokens[fd], prompt_tokens[fd] + 1);
        whole(fd, b);
        return;
    }
    c->busy = 1;
    c->sent = 0;
    c->read_at = now();
    c->due = c->read_at + ttft;
    const char *head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    put(fd, head, strlen(head));
}
static void token(int fd) {
    connection *c = all[fd];
    int last = c->sent == c->tokens - 1;
    char b[300];
    // Like vLLM, send the role with the first token, as a separate chunk.
    if (is_chat[fd] && !c->sent) chunk(fd, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}");
    const char *finish = last ? "\"length\"" : "null";
    if (is_chat[fd]) sprintf(b, "{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":%s,\"token_ids\":null}]}", finish);
    else sprintf(b, "{\"index\":0,\"text\":\" word\",\"logprobs\":null,\"finish_reason\":%s}]}", finish);
    c->at[c->sent++] = now();
    chunk(fd, b);
    c->due += gap;
    if (!last) return;
    sprintf(b, "],\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}}", prompt_tokens[fd], prompt_tokens[fd] + c->tokens, c->tokens);
    chunk(fd, b);
    event(fd, "data: [DONE]\n\n");
    put(fd, "0\r\n\r\n", 5);
    c->busy = 0;
    fprintf(told, "%lld", (long long)(c->read_at / 1000));
    for (int i = 0; i < c->tokens; i++) fprintf(told, " %lld", (long long)(c->at[i] / 1000));
    fputc('\n', told);
    fflush(told);
}
static void requests(int fd) { // one after another, while the buffer has a complete one
    connection *c = all[fd];
    while (!c->busy && c->length) {
        c->in[c->length] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) return;
        char *length = strcasestr(c->in, "\r\ncontent-length:");
        int need = end + 4 - c->in + (length && length < end ? atoi(length + 17) : 0);
        if (c->length < need) return;
        char kept = c->in[need];
        c->in[need] = 0;
        is_chat[fd] = strncmp(c->in, "POST /v1/chat", 13) == 0;
        if (!strncmp(c->in, "POST ", 5)) start(fd, end + 4);
        else if (!strncmp(c->in, "GET /v1/models", 14)) whole(fd, "{\"object\":\"list\",\"data\":[{\"id\":\"exact\",\"object\":\"model\",\"created\":1763683200,\"owned_by\":\"vllm\",\"root\":\"exact\",\"max_model_len\":32768}]}");
        else whole(fd, "{}");
        c->in[need] = kept;
        memmove(c->in, c->in + need, c->length - need);
        c->length -= need;
    }
}
int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "exact_engine PORT TTFT_US GAP_US LOG\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL); // otherwise the kernel may be 50 us late
    ttft = atoll(argv[2]) * 1000;
    gap = atoll(argv[3]) * 1000;
    told = fopen(argv[4], "w");
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (!told || bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) { perror("exact_engine"); return 1; }
    int ep = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event ev = {EPOLLIN, {.fd = listener}}, ready[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    ev.data.fd = timer;
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &ev);
    for (int highest = 0;;) {
        int64_t next = 0;
        for (int fd = 0; fd <= highest; fd++) {
            if (!all[fd] || !all[fd]->busy) continue;
            while (all[fd]->busy && all[fd]->due <= now()) token(fd);
            if (!all[fd]->busy) requests(fd);
            if (all[fd]->busy && (!next || all[fd]->due < next)) next = all[fd]->due;
        }
        struct itimerspec when = {{0, 0}, {next / 1000000000, next % 1000000000}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, 0);
        int n = epoll_wait(ep, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == timer) { uint64_t x; if (read(timer, &x, 8) < 0) {} continue; }
            if (fd == listener) {
                int k = accept4(listener, 0, 0, SOCK_NONBLOCK);
                if (k < 0) continue;
                if (k >= MOST_FDS) { close(k); continue; }
                if (!all[k]) { all[k] = calloc(1, sizeof *all[k]); all[k]->in = malloc(ROOM + 1); }
                all[k]->length = all[k]->busy = 0;
                if (k > highest) highest = k;
                setsockopt(k, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                ev.data.fd = k;
                epoll_ctl(ep, EPOLL_CTL_ADD, k, &ev);
                continue;
            }
            connection *c = all[fd];
            int k = c->length < ROOM ? recv(fd, c->in + c->length, ROOM - c->length, 0) : 0;
            if (k == 0 || (k < 0 && errno != EAGAIN)) { c->busy = c->length = 0; close(fd); continue; }
            if (k > 0) { c->length += k; requests(fd); }
        }
    }
}
