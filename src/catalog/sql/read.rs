//! One pass over the tokens of a text: finds parameters, and everything that keeps it from being a query.
//!
//! Keeps a stack of what is open. Each group remembers how it began, since `WITH` is followed by its real verb only
//! after the parentheses of its parts, and since FOR UPDATE means a lock only where a query stands.
//! Goes on after a problem, so that all of them are reported; what only follows from an earlier one is left out.

use super::lex::{Lexeme, Lexer, Token};
use super::{CLAIMS, MAX_PARAMS, MAX_TEXT_BYTES, Problem, Site, Statement, is_name};

/// The alias of the wrapping subquery: a column of that name would be aggregated in the row's place.
const RESERVED: &str = "__seawall_row";

/// Most problems of one text: somebody who sees a hundred fixes the first and asks again.
const MAX_PROBLEMS: usize = 100;

/// Words that no expression ends with: a `:` after them begins a parameter, also in brackets.
const EXPECTS_OPERAND: [&str; 17] = [
    "AND",
    "ASYMMETRIC",
    "BETWEEN",
    "CASE",
    "ELSE",
    "ESCAPE",
    "FROM",
    "ILIKE",
    "IN",
    "IS",
    "LIKE",
    "NOT",
    "OR",
    "SYMMETRIC",
    "THEN",
    "TO",
    "WHEN",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bounds {
    Text,
    Parens,
    /// The parentheses of `json_object` and `json_objectagg`, where `:` separates.
    JsonParens,
    Brackets,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Nothing has been read yet.
    Start,
    /// `WITH`, and its verb is still to come.
    With,
    /// A query's verb.
    Query,
    /// Anything else.
    Expression,
}

struct Group {
    bounds: Bounds,
    head: Head,
    /// The statement of a part of `WITH`.
    part_of_with: bool,
    open: usize,
}

struct Reader<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    groups: Vec<Group>,
    /// The last three tokens, the nearest first.
    recent: [Option<Lexeme>; 3],
    begun: bool,
    semicolon: bool,
    unterminated: bool,
    params: Vec<Box<str>>,
    sites: Vec<Site>,
    end: usize,
    problems: Vec<(usize, String)>,
}

pub(super) fn read(text: &str) -> Result<Statement, Vec<Problem>> {
    let mut reader = Reader {
        text,
        lexer: Lexer::new(text),
        groups: vec![Group { bounds: Bounds::Text, head: Head::Start, part_of_with: false, open: 0 }],
        recent: [None; 3],
        begun: false,
        semicolon: false,
        unterminated: false,
        params: Vec::new(),
        sites: Vec::new(),
        end: 0,
        problems: Vec::new(),
    };
    if text.len() > MAX_TEXT_BYTES {
        let message =
            format!("the text has {} bytes, at most {MAX_TEXT_BYTES} are taken: put it into a view", text.len());
        return Err(vec![Problem { line: 1, column: 1, message }]);
    }
    if let Some(at) = text.find('\0') {
        reader.report(at, "a NUL byte, which Postgres can't take: remove it");
    }
    while let Some(lexeme) = reader.lexer.next() {
        reader.take(lexeme);
    }
    reader.finish()
}

impl<'a> Reader<'a> {
    fn report(&mut self, at: usize, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((at, message.into()));
        }
    }

    fn slice(&self, lexeme: Lexeme) -> &'a str {
        &self.text[lexeme.start..lexeme.end]
    }

    /// Whether the token `back` places before this one is the keyword `word`.
    fn recently(&self, back: usize, word: &str) -> bool {
        self.recent[back].is_some_and(|l| l.kind == Token::Word && self.slice(l).eq_ignore_ascii_case(word))
    }

    fn group(&mut self) -> &mut Group {
        self.groups.last_mut().expect("the group of the text itself is never closed")
    }

    fn group_bounds(&self) -> Bounds {
        self.groups.last().map_or(Bounds::Text, |group| group.bounds)
    }

    fn take(&mut self, mut lexeme: Lexeme) {
        if lexeme.kind == Token::Semicolon {
            self.semicolon = true;
            return;
        }
        if let Token::Unterminated(what) = lexeme.kind {
            self.unterminated = true;
            self.report(lexeme.start, format!("this {what} has no end"));
            if what == "comment" {
                return;
            }
        }
        if std::mem::take(&mut self.semicolon) {
            let message = if self.begun {
                "a second statement begins here: a query is one statement"
            } else {
                "the text begins with a `;`: remove it"
            };
            self.report(lexeme.start, message);
        }
        self.first(lexeme);
        match lexeme.kind {
            Token::Word => self.word(lexeme),
            Token::Quoted if self.slice(lexeme).ends_with(&format!("\"{RESERVED}\"")) => self.reserved(lexeme),
            Token::BadNumber => {
                let message = format!("the number {} runs into a word: put a space between them", self.cut(lexeme));
                self.report(lexeme.start, message);
            }
            Token::Positional => {
                let message = format!("{}: parameters have names here, write :name", self.cut(lexeme));
                self.report(lexeme.start, message);
            }
            // Nothing that Postgres takes; refused here, so that no prefix of a string has to be told from a tag.
            Token::Other if self.slice(lexeme) == "$" => {
                self.report(lexeme.start, "a `$` that begins nothing: parameters are written :name");
            }
            Token::Colon => lexeme = self.colon(lexeme),
            Token::Open => self.open(lexeme),
            Token::OpenBracket => self.push(Bounds::Brackets, lexeme, false),
            Token::Close => self.close(lexeme),
            Token::CloseBracket => self.close_bracket(lexeme),
            _ => {}
        }
        if !matches!(lexeme.kind, Token::Open | Token::OpenBracket) && self.group().head == Head::Start {
            self.group().head = Head::Expression;
        }
        self.end = lexeme.end;
        self.recent = [Some(lexeme), self.recent[0], self.recent[1]];
    }

    /// The first token that is no opening parenthesis decides whether this can be a query.
    fn first(&mut self, lexeme: Lexeme) {
        if self.begun || matches!(lexeme.kind, Token::Open | Token::Close | Token::Unterminated(_)) {
            return;
        }
        self.begun = true;
        let reads = ["SELECT", "WITH", "VALUES", "TABLE"];
        let is_reading =
            lexeme.kind == Token::Word && reads.iter().any(|verb| self.slice(lexeme).eq_ignore_ascii_case(verb));
        if !is_reading {
            let message = format!("a query begins with SELECT, WITH, VALUES or TABLE, not with {}", self.cut(lexeme));
            self.report(lexeme.start, message);
        }
    }

    fn word(&mut self, lexeme: Lexeme) {
        let word = self.slice(lexeme).to_ascii_uppercase();
        if word.eq_ignore_ascii_case(RESERVED) {
            self.reserved(lexeme);
        }
        let after_part = self.recent[0].is_some_and(|l| l.kind == Token::Close);
        let (head, part_of_with) = (self.group().head, self.group().part_of_with);
        match &*word {
            "SELECT" | "VALUES" | "TABLE" if matches!(head, Head::Start | Head::With) => {
                self.group().head = Head::Query;
            }
            "WITH" if head == Head::Start => self.group().head = Head::With,
            "INSERT" | "UPDATE" | "DELETE" | "MERGE"
                if (head == Head::Start && part_of_with) || (head == Head::With && after_part) =>
            {
                self.report(lexeme.start, format!("{word} writes: a query only reads"));
                self.group().head = Head::Query;
            }
            "UPDATE" | "SHARE" if self.groups.len() == 1 || matches!(head, Head::With | Head::Query) => {
                let keyed = if word == "UPDATE" {
                    self.recently(0, "KEY") && self.recently(1, "NO") && self.recently(2, "FOR")
                } else {
                    self.recently(0, "KEY") && self.recently(1, "FOR")
                };
                if keyed || self.recently(0, "FOR") {
                    let clause = if keyed { "FOR … KEY" } else { "FOR" };
                    self.report(lexeme.start, format!("{clause} {word} locks rows: a query only reads, leave it out"));
                }
            }
            _ => {}
        }
    }

    fn reserved(&mut self, lexeme: Lexeme) {
        self.report(lexeme.start, format!("the name {RESERVED} is reserved: choose another"));
    }

    /// Reads the parameter that begins here, if this is where one begins.
    fn colon(&mut self, colon: Lexeme) -> Lexeme {
        let separates = matches!(self.group_bounds(), Bounds::Brackets | Bounds::JsonParens);
        if separates && self.follows_value() {
            return colon;
        }
        let Some(name) = self.lexer.take_name() else {
            if !separates {
                let remedy = if self.lexer.at_quote() { "write :name, without quotes" } else { "write :name" };
                self.report(colon.start, format!("a `:` without a parameter's name after it: {remedy}"));
            }
            return colon;
        };
        let mut site = Lexeme { kind: Token::Word, start: colon.start, end: name.end };
        let mut spelled = self.slice(name);
        let mut good = is_name(spelled);
        if spelled == CLAIMS {
            let Some(member) = self.lexer.take_member() else {
                self.report(colon.start, "`:claims` stands for what is known of the caller: write :claims.name");
                return Lexeme { kind: Token::Literal, ..site };
            };
            good = is_name(self.slice(member));
            site.end = member.end;
            spelled = &self.text[name.start..member.end];
        }
        if good {
            self.site(site, spelled);
        } else {
            let lower = spelled.to_ascii_lowercase();
            let remedy = if is_name(&lower) { format!(": write :{lower}") } else { String::new() };
            let message = format!(
                "{} is no parameter name, which is a lower-case letter, then up to 62 lower-case letters, digits or _{remedy}",
                self.cut(site)
            );
            self.report(colon.start, message);
        }
        // Taken for a literal from here on: a value stands here, and never a keyword.
        Lexeme { kind: Token::Literal, ..site }
    }

    fn follows_value(&self) -> bool {
        // `json_object('a' VALUE :v)`, while the first word of a pair may well be a column called value.
        let keyword_value = self.group_bounds() == Bounds::JsonParens && self.recently(0, "VALUE") && self.is_value(1);
        // AT TIME ZONE, while a column may well be called zone.
        let zone = self.recently(0, "ZONE") && self.recently(1, "TIME");
        self.is_value(0) && !keyword_value && !zone
    }

    /// Whether the token `back` places before this one can end an expression.
    fn is_value(&self, back: usize) -> bool {
        self.recent[back].is_some_and(|l| match l.kind {
            Token::Word => !EXPECTS_OPERAND.iter().any(|word| self.slice(l).eq_ignore_ascii_case(word)),
            Token::Quoted
            | Token::Literal
            | Token::Number
            | Token::BadNumber
            | Token::Positional
            | Token::Close
            | Token::CloseBracket => true,
            _ => false,
        })
    }

    fn site(&mut self, site: Lexeme, name: &str) {
        let param = self.params.iter().position(|known| **known == *name).unwrap_or_else(|| {
            self.params.push(name.into());
            self.params.len() - 1
        });
        if param == MAX_PARAMS && self.params.len() == MAX_PARAMS + 1 {
            let message = format!("more than {MAX_PARAMS} parameters: pass an array or json");
            if !self.problems.iter().any(|(_, known)| *known == message) {
                self.report(site.start, message);
            }
        }
        self.sites.push(Site { start: site.start, end: site.end, param });
    }

    fn push(&mut self, bounds: Bounds, lexeme: Lexeme, part_of_with: bool) {
        self.groups.push(Group { bounds, head: Head::Start, part_of_with, open: lexeme.start });
    }

    fn open(&mut self, lexeme: Lexeme) {
        let json = self.recently(0, "JSON_OBJECT") || self.recently(0, "JSON_OBJECTAGG");
        let part = self.group().head == Head::With
            && (self.recently(0, "AS")
                || (self.recently(0, "MATERIALIZED")
                    && (self.recently(1, "AS") || (self.recently(1, "NOT") && self.recently(2, "AS")))));
        self.push(if json { Bounds::JsonParens } else { Bounds::Parens }, lexeme, part);
    }

    fn close(&mut self, lexeme: Lexeme) {
        match self.group().bounds {
            Bounds::Parens | Bounds::JsonParens => {
                self.groups.pop();
            }
            Bounds::Text => self.report(lexeme.start, "this `)` closes nothing: remove it"),
            Bounds::Brackets => {
                self.report(lexeme.start, "a `]` is missing before this `)`");
                while self.group().bounds == Bounds::Brackets {
                    self.groups.pop();
                }
                if self.groups.len() > 1 {
                    self.groups.pop();
                }
            }
        }
    }

    fn close_bracket(&mut self, lexeme: Lexeme) {
        if self.group().bounds == Bounds::Brackets {
            self.groups.pop();
        } else {
            self.report(lexeme.start, "this `]` closes nothing: remove it, or close the `(` before it");
        }
    }

    /// At most 64 characters of a token, for a message.
    fn cut(&self, lexeme: Lexeme) -> String {
        let text = self.slice(lexeme);
        let mut short: String = text.chars().take(64).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }

    fn finish(mut self) -> Result<Statement, Vec<Problem>> {
        // After a string without end nothing can be closed any more, and saying so would hide the cause.
        if !self.unterminated {
            if !self.begun && self.problems.is_empty() {
                self.report(0, "the text is empty: write a SELECT");
            }
            for group in std::mem::take(&mut self.groups).into_iter().skip(1) {
                let open = if group.bounds == Bounds::Brackets { '[' } else { '(' };
                self.report(group.open, format!("this `{open}` is never closed"));
            }
        }
        if self.problems.is_empty() {
            return Ok(Statement { text: self.text.into(), params: self.params, sites: self.sites, end: self.end });
        }
        self.problems.sort_by_key(|(at, _)| *at);
        Err(self.problems.into_iter().map(|(at, message)| locate(self.text, at, message)).collect())
    }
}

fn locate(text: &str, at: usize, message: String) -> Problem {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Problem {
        line: before.bytes().filter(|b| *b == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}
