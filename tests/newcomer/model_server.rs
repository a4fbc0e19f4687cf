//! A model server of one's own: it takes chat completions, as llama.cpp, Ollama and vLLM do, and its answers fit the schema that
//! came with the question.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Map, Value, json};

/// Serves on a free port until this process ends; gives the port.
pub fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || serve(connection));
        }
    });
    port
}

/// Until the caller has gone; whoever only looks whether somebody listens sends nothing.
fn serve(connection: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let mut heads = Vec::new();
        loop {
            let mut line = String::new();
            (reader.read_line(&mut line).ok()? > 0).then_some(())?;
            if line.trim().is_empty() {
                break;
            }
            heads.push(line.to_lowercase());
        }
        let length = heads.iter().find_map(|head| head.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let known = heads.first().is_some_and(|head| head.starts_with("post /v1/chat/completions "));
        let (status, answer) = match serde_json::from_slice::<Value>(&body) {
            Ok(asked) if known => ("200 OK", completion(&asked)),
            _ => ("404 Not Found", json!({"error": {"message": "no such address", "type": "not_found"}})),
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}",
            answer.len()
        );
        write!(writer, "{head}\r\n\r\n{answer}").ok()?;
    }
}

fn completion(asked: &Value) -> Value {
    let schema = &asked["response_format"]["json_schema"]["schema"];
    let content = value(schema, schema, "").to_string();
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
    })
}

/// The plainest value that fits.
fn value(root: &Value, schema: &Value, name: &str) -> Value {
    if let Some(path) = schema["$ref"].as_str() {
        return value(root, root.pointer(path.trim_start_matches('#')).unwrap_or(&Value::Null), name);
    }
    for known in ["enum", "anyOf", "oneOf"] {
        if let Some(first) = schema[known].get(0) {
            return if known == "enum" { first.clone() } else { value(root, first, name) };
        }
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str());
    match kind {
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let members = members.map(|(name, member)| (name.clone(), value(root, member, name)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Some("array") => json!([value(root, &schema["items"], name)]),
        Some("boolean") => json!(false),
        Some("integer" | "number") => schema["minimum"].as_i64().unwrap_or(1).into(),
        _ if name.contains("language") => json!("en"),
        _ => json!("Said by a server of one's own."),
    }
}
