//! What `map` prints for each task.

use std::str::FromStr;

/// One part of a [`Template`].
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Result,
    Input,
    Index,
}

/// What `map` prints for each task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template(Vec<Part>);

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => {
                    f.write_str(&text.replace('\\', r"\\").replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Result => f.write_str("{result}")?,
                Part::Input => f.write_str("{input}")?,
                Part::Index => f.write_str("{index}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\\' => plain.push(match chars.next() {
                    Some('t') => '\t',
                    Some('n') => '\n',
                    Some('0') => '\0',
                    Some('\\') => '\\',
                    other => {
                        let found = other.map(String::from).unwrap_or_default();
                        return Err(format!("`\\{found}` is unknown; write \\t, \\n, \\0 or \\\\"));
                    }
                }),
                '{' | '}' if chars.as_str().starts_with(char) => {
                    plain.push(char);
                    chars.next();
                }
                '{' => {
                    let rest = chars.as_str();
                    let (name, after) =
                        rest.split_once('}').ok_or("`{` has no `}`; write `{{` for a brace")?;
                    chars = after.chars();
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(match name {
                        "result" => Part::Result,
                        "input" => Part::Input,
                        "index" => Part::Index,
                        _ => {
                            let known = "{result}, {input} and {index}";
                            return Err(format!("`{{{name}}}` is unknown; there are {known}"));
                        }
                    });
                }
                '}' => return Err("`}` has no `{`; write `}}` for a brace".into()),
                other => plain.push(other),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// One that does without results.
    pub(crate) fn of_inputs(text: &str) -> Result<Self, String> {
        let template: Self = text.parse()?;
        if template.0.contains(&Part::Result) {
            return Err("there is no {result} before the task has run; there are {input} and \
                        {index}"
                .into());
        }
        Ok(template)
    }

    /// What it makes of an input.
    pub(crate) fn of_input(&self, input: &[u8], index: u64) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, b"", input, index);
        out.pop();
        out
    }

    /// Appends one line.
    pub(crate) fn write(&self, out: &mut Vec<u8>, result: &[u8], input: &[u8], index: u64) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Result => out.extend_from_slice(result),
                Part::Input => out.extend_from_slice(input),
                Part::Index => out.extend_from_slice(index.to_string().as_bytes()),
            }
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(template: &str) -> String {
        let mut out = Vec::new();
        let template: Template = template.parse().expect("a template");
        assert_eq!(template.to_string().parse(), Ok(template.clone()));
        template.write(&mut out, b"R", b"I", 7);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_template_puts_its_parts_in() {
        assert_eq!(line("{result}  {input}"), "R  I\n");
        assert_eq!(line(r"{index}\t{{{result}}}\\"), "7\t{R}\\\n");
        assert_eq!(line(""), "\n");
    }

    #[test]
    fn a_key_is_made_of_the_input_alone() {
        let key = Template::of_inputs("{input}#{index}").expect("a template");
        assert_eq!(key.of_input(b"I", 7), b"I#7");
        assert!(Template::of_inputs("{result}").expect_err("too early").contains("{input}"));
    }

    #[test]
    fn a_template_with_a_mistake_says_what_is_right() {
        for (text, remedy) in [
            ("{results}", "there are {result}, {input} and {index}"),
            ("{result", "write `{{`"),
            ("result}", "write `}}`"),
            (r"\x", r"write \t"),
        ] {
            let error = text.parse::<Template>().expect_err("a mistake");
            assert!(error.contains(remedy), "{error}");
        }
    }
}
