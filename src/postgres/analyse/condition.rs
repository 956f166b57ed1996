//! The conditions that EXPLAIN prints: which columns they make equal to a parameter.
//!
//! Tokens are found with the lexer of SQL. A member of the outermost AND counts if it is exactly `alias.column = $n`,
//! `$n = alias.column` or `(alias.column)::text = $n`, the last being how a varchar is compared; what is anything else, or
//! doesn't parse, is no member. PostgreSQL puts every AND and OR in parentheses of its own, so an OR is never taken apart.

use crate::catalog::depends::unquoted;
use crate::catalog::sql::lex::{Lexer, Token};

/// A column of `alias` that equals the parameter `$n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Equality {
    pub(super) column: String,
    pub(super) param: usize,
}

type Lexed<'a> = (Token, &'a str);

/// What `condition` makes equal, of the columns of `alias`.
pub(super) fn equalities(condition: &str, alias: &str) -> Vec<Equality> {
    let mut lexer = Lexer::new(condition);
    let mut tokens: Vec<Lexed<'_>> = vec![];
    while let Some(lexeme) = lexer.next() {
        if matches!(lexeme.kind, Token::Unterminated(_) | Token::Semicolon) {
            return vec![];
        }
        tokens.push((lexeme.kind, &condition[lexeme.start..lexeme.end]));
    }
    let whole = without_parens(&tokens);
    members(whole).into_iter().filter_map(|member| equality(without_parens(member), alias)).collect()
}

/// Without the parentheses that enclose all of `tokens`, however many.
fn without_parens<'t, 'a>(mut tokens: &'t [Lexed<'a>]) -> &'t [Lexed<'a>] {
    while let [(Token::Open, _), inner @ .., (Token::Close, _)] = tokens {
        let mut depth = 0_i32;
        let closes_early = inner.iter().any(|(kind, _)| {
            depth += nesting(*kind);
            depth < 0
        });
        if closes_early {
            break;
        }
        tokens = inner;
    }
    tokens
}

fn nesting(kind: Token) -> i32 {
    match kind {
        Token::Open | Token::OpenBracket => 1,
        Token::Close | Token::CloseBracket => -1,
        _ => 0,
    }
}

/// The parts between the ANDs that stand outside of any parentheses; all of it where there is none.
fn members<'t, 'a>(tokens: &'t [Lexed<'a>]) -> Vec<&'t [Lexed<'a>]> {
    let mut depth = 0_i32;
    tokens
        .split(|(kind, text)| {
            depth += nesting(*kind);
            depth == 0 && *kind == Token::Word && *text == "AND"
        })
        .collect()
}

fn equality(tokens: &[Lexed<'_>], alias: &str) -> Option<Equality> {
    use Token::{Cast, Close, Open, Operator, Positional};
    let ([of, (_, "."), column, (Operator, "="), (Positional, param)]
    | [(Positional, param), (Operator, "="), of, (_, "."), column]
    | [
        (Open, _),
        of,
        (_, "."),
        column,
        (Close, _),
        (Cast, _),
        (Token::Word, "text"),
        (Operator, "="),
        (Positional, param),
    ]) = tokens
    else {
        return None;
    };
    (name(*of)? == alias).then_some(())?;
    Some(Equality { column: name(*column)?, param: param.strip_prefix('$')?.parse().ok()? })
}

fn name((kind, text): Lexed<'_>) -> Option<String> {
    match kind {
        Token::Word => Some(text.to_owned()),
        Token::Quoted => Some(unquoted(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(condition: &str) -> String {
        let found = equalities(condition, "p");
        found.iter().map(|e| format!("{}={}", e.column, e.param)).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn the_three_forms_are_members_and_so_is_each_of_an_and() {
        assert_eq!(found("(p.id = $901)"), "id=901");
        assert_eq!(found("($901 = p.id)"), "id=901");
        assert_eq!(found("((p.kind)::text = $901)"), "kind=901");
        assert_eq!(found("((p.id = $901) AND (p.price > 3) AND ((p.kind)::text = $902))"), "id=901,kind=902");
        assert_eq!(found("(p.\"Id \"\"x\" = $901)"), "Id \"x=901");
        assert_eq!(equalities("(\"P 1\".id = $4)", "P 1").len(), 1);
    }

    #[test]
    fn nothing_else_is() {
        for condition in [
            "((p.id = $901) OR (p.id = $902))",
            "((p.a > 1) AND ((p.id = $901) OR (p.b = 2)))",
            "(NOT (p.id = $901))",
            "((p.id = $901) IS NOT TRUE)",
            "((p.id = $901) = p.flag)",
            "(p.id = ($901)::integer)",
            "((p.id)::numeric = $901)",
            "((p.id)::text = ($901)::text)",
            "(lower(p.name) = $901)",
            "(p.id >= $901)",
            "(p.id <> $901)",
            "(p.id = ANY ($901))",
            "(p.id = $901 + 1)",
            "(o.id = $901)",
            "(p.id = o.id)",
            "(p.id OPERATOR(shop.=) $901)",
            "($1 = $901)",
            "(p.name = 'x = $901'::text)",
            "(p.id = $901",
            "p.id = $901) AND (p.id = $902",
            "(p.name = 'open",
            "",
            "(CASE WHEN ((p.id = $901) AND p.b) THEN 1 ELSE 2 END = $902)",
            "(p.name COLLATE \"C\" = $901)",
            "(p.tags[1] = $901)",
            "((p.addr).id = $901)",
            "(hashed SubPlan 1)",
        ] {
            assert_eq!(found(condition), "", "{condition}");
        }
    }
}
