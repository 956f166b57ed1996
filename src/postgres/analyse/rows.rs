//! Which columns rows may be told by: those whose default equality implies equal text, under every setting of a session.
//!
//! An event's tag is made in the writer's session and an answer's tag here, so values that are equal must be spelt alike
//! by both. numeric has 1.0 and 1, citext and nondeterministic collations have letters, floats and dates have settings.

use postgres_types::Type;

use super::catalogs::Column;

/// Types whose values print alike wherever they are equal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Integer,
    Boolean,
    Uuid,
    Text,
}

fn family(kind: u32) -> Option<Family> {
    Some(match Type::from_oid(kind)? {
        Type::INT2 | Type::INT4 | Type::INT8 => Family::Integer,
        Type::BOOL => Family::Boolean,
        Type::UUID => Family::Uuid,
        Type::TEXT | Type::VARCHAR => Family::Text,
        _ => return None,
    })
}

/// Whether rows can be told by this column at all.
pub(super) fn tells(column: &Column) -> bool {
    column.deterministic && family(column.kind).is_some()
}

/// Whether rows of `table` can be told by its column `name` and a parameter of type `param`.
///
/// # Errors
/// Why not.
pub(super) fn admit(table: &[&Column], name: &str, param: u32) -> Result<(), String> {
    const FAMILIES: &str = "int2, int4 and int8; bool; uuid; text and varchar";
    let Some(column) = table.iter().find(|column| column.name == name) else {
        return Err(format!("it has no column {name}"));
    };
    if !column.deterministic {
        return Err(format!("the collation of {name} finds texts equal that differ"));
    }
    let Some(of_column) = family(column.kind) else {
        return Err(format!("equal values of {name} may print differently; rows are told by {FAMILIES}"));
    };
    if family(param) != Some(of_column) {
        return Err(format!("{name} and its parameter are not of one family of types: {FAMILIES}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: &Type, deterministic: bool) -> Column {
        Column { relation: 1, name: "c".into(), kind: kind.oid(), deterministic }
    }

    #[test]
    fn families_meet_among_themselves_only() {
        let admits = |column_type: &Type, param: &Type| admit(&[&column(column_type, true)], "c", param.oid()).is_ok();
        assert!(admits(&Type::INT4, &Type::INT8) && admits(&Type::INT8, &Type::INT2));
        assert!(admits(&Type::BOOL, &Type::BOOL) && admits(&Type::UUID, &Type::UUID));
        assert!(admits(&Type::VARCHAR, &Type::TEXT) && admits(&Type::TEXT, &Type::VARCHAR));
        assert!(!admits(&Type::INT4, &Type::NUMERIC) && !admits(&Type::TEXT, &Type::INT4));
        for refused in
            [Type::NUMERIC, Type::FLOAT8, Type::BPCHAR, Type::DATE, Type::TIMESTAMPTZ, Type::BYTEA, Type::NAME]
        {
            assert!(!admits(&refused, &refused), "{refused}");
        }
    }

    #[test]
    fn a_column_must_be_there_and_be_deterministic() {
        assert!(admit(&[], "c", Type::TEXT.oid()).is_err());
        assert!(admit(&[&column(&Type::TEXT, false)], "c", Type::TEXT.oid()).is_err());
        assert!(!tells(&column(&Type::TEXT, false)) && tells(&column(&Type::TEXT, true)));
        assert!(!tells(&column(&Type::NUMERIC, true)));
    }
}
