import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Jdk {
    public static void main(String[] arguments) throws Exception {
        String body = """
            {"model": "%s", "messages": [{"role": "user", "content": "Say hello."}], "stream": true}
            """.formatted(System.getenv("MODEL"));
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("OPENAI_BASE_URL") + "/chat/completions"))
            .header("Authorization", "Bearer " + System.getenv("OPENAI_API_KEY"))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofLines()).body().forEach(System.out::println);
    }
}
