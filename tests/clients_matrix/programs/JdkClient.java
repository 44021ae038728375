import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** JDK's HttpClient with its defaults, which offer an upgrade to HTTP/2 on every new connection without TLS. */
public class JdkClient {
    private static final String BASE = System.getenv("MATRIX_BASE");
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final Pattern CONTENT = Pattern.compile("\"content\": ?\"((?:\\\\.|[^\"\\\\])+)\"");
    private static final Pattern ID = Pattern.compile("\"id\": ?\"([^\"]+)\"");
    private static final long RETRY_CEILING = 3;

    private static class Refused extends Exception {
        final int status;

        Refused(int status, String body) {
            super(body);
            this.status = status;
        }
    }

    public static void main(String[] arguments) throws IOException {
        HttpClient client = HttpClient.newHttpClient();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null;) {
            try {
                OUT.println("{\"value\": " + run(client, line) + "}");
            } catch (Refused error) {
                OUT.println("{\"error\": {\"classes\": [\"" + error.status + "\"], \"status\": " + error.status
                    + ", \"message\": " + quote(error.getMessage()) + "}}");
            } catch (Exception error) {
                OUT.println("{\"error\": {\"classes\": [\"" + error.getClass().getSimpleName()
                    + "\"], \"status\": null, \"message\": " + quote(String.valueOf(error)) + "}}");
            }
        }
    }

    private static String run(HttpClient client, String asked) throws Exception {
        switch (field(asked, "do")) {
            case "version": return quote("JDK " + System.getProperty("java.version"));
            case "chat": return quote(chat(client, asked));
            case "stream": return stream(client, asked);
            case "leave": return leave(client, asked);
            case "cancel_future": return cancelFuture(client, asked);
            case "models": return "[" + quote(find(ID, get(client, asked, "/v1/models"))) + "]";
            case "retrieve":
                return quote(find(ID, get(client, asked, "/v1/models/" + field(asked, "model").replace("/", "%2F"))));
            case "raw_slash": return quote(find(ID, get(client, asked, "/v1/models/" + field(asked, "model"))));
            case "keep_alive": return keepAlive(client, asked);
            case "http_1_1": return quote(chat(HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build(), asked));
            default: throw new IllegalArgumentException(asked);
        }
    }

    private static HttpRequest.Builder request(String asked, String path) {
        return HttpRequest.newBuilder(URI.create(BASE + path)).timeout(Duration.ofSeconds(30))
            .header("Authorization", "Bearer " + field(asked, "key")).header("Content-Type", "application/json");
    }

    private static HttpRequest post(String asked, boolean stream) {
        String most = asked.contains("\"max_tokens\"") ? find(Pattern.compile("\"max_tokens\": ?(\\d+)"), asked) : "20";
        String body = "{\"model\": \"" + field(asked, "model") + "\", \"stream\": " + stream + ", \"max_tokens\": " + most
            + ", \"messages\": [{\"role\": \"user\", \"content\": \"" + field(asked, "prompt") + "\"}]}";
        return request(asked, "/v1/chat/completions").POST(HttpRequest.BodyPublishers.ofString(body)).build();
    }

    private static String chat(HttpClient client, String asked) throws Exception {
        boolean retries = asked.contains("\"retries\": 2");
        for (long attempt = 1;; attempt++) {
            HttpResponse<String> answer = client.send(post(asked, false), HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() == 200) return unescape(find(CONTENT, answer.body()));
            if (!retries || answer.statusCode() != 429 || attempt == RETRY_CEILING)
                throw new Refused(answer.statusCode(), answer.body());
            Thread.sleep(1000 * answer.headers().firstValueAsLong("retry-after").orElse(1));
        }
    }

    private static String get(HttpClient client, String asked, String path) throws Exception {
        HttpResponse<String> answer = client.send(request(asked, path).build(), HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new Refused(answer.statusCode(), answer.body());
        return answer.body();
    }

    private static String stream(HttpClient client, String asked) throws Exception {
        long began = System.nanoTime();
        List<String> pieces = new ArrayList<>();
        HttpResponse<java.util.stream.Stream<String>> answer =
            client.send(post(asked, true), HttpResponse.BodyHandlers.ofLines());
        if (answer.statusCode() != 200) throw new Refused(answer.statusCode(), answer.body().findFirst().orElse(""));
        answer.body().forEach(line -> {
            if (line.startsWith("data: {\"error\"")) throw new IllegalStateException(line);
            Matcher matcher = CONTENT.matcher(line);
            if (matcher.find())
                pieces.add("[" + (System.nanoTime() - began) / 1e9 + ", " + quote(unescape(matcher.group(1))) + "]");
        });
        return pieces.toString();
    }

    private static String leave(HttpClient client, String asked) throws Exception {
        HttpResponse<InputStream> answer = client.send(post(asked, true), HttpResponse.BodyHandlers.ofInputStream());
        try (InputStream body = answer.body()) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(body, StandardCharsets.UTF_8));
            for (String line; (line = lines.readLine()) != null;) {
                Matcher matcher = CONTENT.matcher(line);
                if (matcher.find()) return quote(unescape(matcher.group(1)));
            }
        }
        throw new IOException("no piece came");
    }

    private static String cancelFuture(HttpClient client, String asked) throws Exception {
        CompletableFuture<HttpResponse<Void>> answer = client.sendAsync(post(asked, true),
            HttpResponse.BodyHandlers.discarding());
        Thread.sleep(500);
        return String.valueOf(answer.cancel(true));
    }

    private static String keepAlive(HttpClient client, String asked) throws Exception {
        for (int number = 0; number < 20; number++) chat(client, asked);
        return "true";
    }

    private static String field(String json, String name) {
        if (name.equals("prompt") && !json.contains("\"prompt\"")) return "Say hello.";
        return find(Pattern.compile("\"" + name + "\": ?\"([^\"]*)\""), json);
    }

    private static String find(Pattern pattern, String text) {
        Matcher matcher = pattern.matcher(text);
        if (!matcher.find()) throw new IllegalStateException("no " + pattern + " in " + text);
        return matcher.group(1);
    }

    private static String unescape(String text) {
        Matcher matcher = Pattern.compile("\\\\u([0-9a-f]{4})").matcher(text);
        return matcher.replaceAll(found -> String.valueOf((char) Integer.parseInt(found.group(1), 16)));
    }

    private static String quote(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n").replace("\r", "\\r") + "\"";
    }
}
