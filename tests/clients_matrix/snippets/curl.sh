curl --fail-with-body --no-buffer "$OPENAI_BASE_URL/chat/completions" \
  --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" \
  --data '{"model": "'"$MODEL"'", "messages": [{"role": "user", "content": "Say hello."}], "stream": true}'
