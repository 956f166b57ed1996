//! Where one token of PostgreSQL's SQL ends and the next begins.
//!
//! Follows `scan.l` in everything that decides the extent of a token: strings of every kind and their continuation over
//! a newline, nested comments, dollar quotes, identifiers, operators that a comment cuts short. A mistake here would let
//! a text break out of the subquery that it is wrapped in, so what servers of different versions read differently (a
//! number that runs into a word) is its own token, for the caller to refuse.
//! `standard_conforming_strings = on` is assumed: a backslash in `'…'` is a character like any other.
//! Works on bytes and never panics: every byte that decides something is ASCII, so tokens end on character boundaries.

/// What a token is, as far as finding parameters and ends of statements needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"…"` or `U&"…"`.
    Quoted,
    /// A string, bit string or dollar-quoted string.
    Literal,
    Number,
    /// A number that runs into a word, as `1E'…'` or `12abc`.
    BadNumber,
    /// `$1`.
    Positional,
    /// A `:` that is neither cast nor assignment; what follows it has not been read.
    Colon,
    /// `::`.
    Cast,
    /// `:=`.
    Assign,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `[`.
    OpenBracket,
    /// `]`.
    CloseBracket,
    Comma,
    Semicolon,
    /// One character of an operator.
    Operator,
    /// Anything else, for Postgres to judge.
    Other,
    /// It began and the text ended.
    Unterminated(&'static str),
}

/// A token and its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexeme {
    pub(crate) kind: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Reads tokens from the left; comments and white space are passed over.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// Whether a backslash takes the next character with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Plain,
    Escapes,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn skip_while(&mut self, belongs: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&belongs) {
            self.at += 1;
        }
    }

    /// The identifier that begins exactly here, if one does. It is read as a name even where it looks like the prefix
    /// of a string: `:e'x'` is the parameter `e` and then a string.
    pub(crate) fn take_name(&mut self) -> Option<Lexeme> {
        let start = self.at;
        if !self.peek(0).is_some_and(starts_word) {
            return None;
        }
        self.skip_while(continues_word);
        Some(Lexeme { kind: Token::Word, start, end: self.at })
    }

    /// Whether the next byte is a quote, as in psql's `:'name'`.
    pub(crate) fn at_quote(&self) -> bool {
        matches!(self.peek(0), Some(b'\'' | b'"'))
    }

    pub(crate) fn next(&mut self) -> Option<Lexeme> {
        if let Some(start) = self.skip_blank() {
            return Some(Lexeme { kind: Token::Unterminated("comment"), start, end: self.at });
        }
        let start = self.at;
        let kind = self.token(self.peek(0)?);
        Some(Lexeme { kind, start, end: self.at })
    }

    fn token(&mut self, first: u8) -> Token {
        let (second, third) = (self.peek(1), self.peek(2));
        match first {
            b'\'' => self.string(1, Backslash::Plain),
            b'e' | b'E' if second == Some(b'\'') => self.string(2, Backslash::Escapes),
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if second == Some(b'\'') => self.string(2, Backslash::Plain),
            b'u' | b'U' if second == Some(b'&') && third == Some(b'\'') => self.string(3, Backslash::Plain),
            b'"' => self.quoted(1),
            b'u' | b'U' if second == Some(b'&') && third == Some(b'"') => self.quoted(3),
            b'$' => self.dollar(),
            b'.' if second.is_some_and(|b| b.is_ascii_digit()) => self.number(),
            _ if first.is_ascii_digit() => self.number(),
            _ if starts_word(first) => {
                self.skip_while(continues_word);
                Token::Word
            }
            b':' if second == Some(b':') => self.take(2, Token::Cast),
            b':' if second == Some(b'=') => self.take(2, Token::Assign),
            b':' => self.take(1, Token::Colon),
            b'(' => self.take(1, Token::Open),
            b')' => self.take(1, Token::Close),
            b'[' => self.take(1, Token::OpenBracket),
            b']' => self.take(1, Token::CloseBracket),
            b',' => self.take(1, Token::Comma),
            b';' => self.take(1, Token::Semicolon),
            // One character at a time: a comment may begin within a run of them, and Postgres ends the operator there.
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
            | b'>' | b'=' => self.take(1, Token::Operator),
            _ => self.take(1, Token::Other),
        }
    }

    fn take(&mut self, bytes: usize, kind: Token) -> Token {
        self.at += bytes;
        kind
    }

    /// Passes white space and comments; where a block comment has no end, says where it began.
    fn skip_blank(&mut self) -> Option<usize> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b), _) if is_space(b) => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.skip_while(|b| b != b'\n' && b != b'\r'),
                (Some(b'/'), Some(b'*')) => {
                    let start = self.at;
                    if !self.block_comment() {
                        return Some(start);
                    }
                }
                _ => return None,
            }
        }
    }

    /// Reads `.name` where it follows at once: the member of what stands before it.
    pub(crate) fn take_member(&mut self) -> Option<Lexeme> {
        if self.peek(0) != Some(b'.') || !self.peek(1).is_some_and(starts_word) {
            return None;
        }
        self.at += 1;
        self.take_name()
    }

    fn block_comment(&mut self) -> bool {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return true;
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return false,
            }
        }
    }

    fn string(&mut self, prefix: usize, backslash: Backslash) -> Token {
        self.at += prefix;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'\\'), Some(_)) if backslash == Backslash::Escapes => self.at += 2,
                (Some(b'\''), Some(b'\'')) => self.at += 2,
                (Some(b'\''), _) => {
                    self.at += 1;
                    match self.continuation() {
                        Some(at) => self.at = at,
                        None => return Token::Literal,
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Token::Unterminated("string"),
            }
        }
    }

    /// Where the string goes on, in the same kind, after white space and `--` comments with a newline among them:
    /// `E'a'` and on the next line `'\'b'` are one string, and its second part still knows backslashes.
    fn continuation(&self) -> Option<usize> {
        let mut ahead = Lexer { text: self.text, at: self.at };
        let mut newline = false;
        loop {
            match (ahead.peek(0), ahead.peek(1)) {
                (Some(b), _) if is_space(b) => {
                    newline |= b == b'\n' || b == b'\r';
                    ahead.at += 1;
                }
                (Some(b'-'), Some(b'-')) => ahead.skip_while(|b| b != b'\n' && b != b'\r'),
                (Some(b'\''), _) if newline => return Some(ahead.at + 1),
                _ => return None,
            }
        }
    }

    fn quoted(&mut self, prefix: usize) -> Token {
        self.at += prefix;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'"'), Some(b'"')) => self.at += 2,
                (Some(b'"'), _) => return self.take(1, Token::Quoted),
                (Some(_), _) => self.at += 1,
                (None, _) => return Token::Unterminated("quoted identifier"),
            }
        }
    }

    fn dollar(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_some_and(|b| b.is_ascii_digit()) {
            self.skip_while(|b| b.is_ascii_digit());
            return Token::Positional;
        }
        let after = self.at;
        if self.peek(0).is_some_and(starts_word) {
            self.skip_while(|b| b != b'$' && continues_word(b));
        }
        if self.peek(0) != Some(b'$') {
            self.at = after;
            return Token::Other;
        }
        self.at += 1;
        let delimiter = &self.text[start..self.at];
        if let Some(found) = self.text[self.at..].find(delimiter) {
            self.at += found + delimiter.len();
            Token::Literal
        } else {
            self.at = self.text.len();
            Token::Unterminated("dollar quote")
        }
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        let based = self.peek(0) == Some(b'0') && matches!(self.peek(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B'));
        loop {
            let exponent = !based && matches!(self.peek(0), Some(b'e' | b'E'));
            match (self.peek(0), self.peek(1)) {
                (_, Some(b'+' | b'-')) if exponent && self.peek(2).is_some_and(|b| b.is_ascii_digit()) => self.at += 2,
                // No `$`: it is no part of a number, and may open a dollar quote.
                (Some(b), _) if b == b'.' || (b != b'$' && continues_word(b)) => self.at += 1,
                _ => break,
            }
        }
        if is_number(&self.text[start..self.at]) { Token::Number } else { Token::BadNumber }
    }
}

fn is_number(text: &str) -> bool {
    let digits = |part: &str, radix: u32| {
        !part.is_empty() && !part.ends_with('_') && part.chars().all(|c| c == '_' || c.is_digit(radix))
    };
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            return digits(rest, radix);
        }
    }
    let (mantissa, exponent) = lower.split_once('e').map_or((&*lower, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    (digits(whole, 10) || (whole.is_empty() && !fraction.is_empty()))
        && (fraction.is_empty() || (digits(fraction, 10) && !fraction.starts_with('_')))
        && exponent.is_none_or(|e| {
            let e = e.strip_prefix(['+', '-']).unwrap_or(e);
            digits(e, 10) && !e.starts_with('_')
        })
}

/// As `scan.l`: every byte outside ASCII belongs to words, also those of exotic spaces.
fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Whether `byte` would become a part of a word or number before it.
pub(crate) fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// White space from PostgreSQL 16 on; before, a vertical tab was a syntax error.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
