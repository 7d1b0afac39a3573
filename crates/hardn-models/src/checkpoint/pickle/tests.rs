use super::*;

fn pickle(body: &[u8]) -> Result<(), String> {
    let bytes = [b"\x80\x02", body, b"."].concat();
    Machine::run(&bytes).map(|_| ())
}

#[test]
fn names_are_refused() {
    for (body, name) in [
        (&b"cos\nsystem\n(U\x04true\x85R"[..], "`os.system`"),
        (b"cbuiltins\neval\n", "`builtins.eval`"),
        (b"ctorch\nload\n", "`torch.load`"),
        (b"\x8c\x05posix\x8c\x06system\x93", "`posix.system`"),
        (b"ctorch.storage\nTypedStorage\n", "`torch.storage.TypedStorage`"),
        (b"c\x1b[2J\nx\n", "u{1b}"),
    ] {
        let error = pickle(body).unwrap_err();
        assert!(error.contains(name) && error.contains("refused"), "{error}");
    }
}

#[test]
fn hostile_pickles_are_errors() {
    for body in [
        &b""[..],
        b"t",
        b"\x87",
        b"R",
        b")R",
        b"h\x07",
        b"]K\x01s",
        b"}(K\x01u",
        b"(0",
        b"ccollections\nOrderedDict\n0R",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)tR",
        b"X\xff\xff\xff\xffabc",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc",
        b"\x8b\xff\xff\xff\xff",
        b"U\x02\xff\xfe",
        b"cname without end",
        b"\x80\x09",
        b"(U\x07storagectorch\nFloatStorage\nK\x01tQ",
        b"\xfe",
    ] {
        assert!(pickle(body).is_err(), "{body:?}");
    }
}

#[test]
fn an_object_that_holds_itself_costs_nothing() {
    // A list of itself, and 2^40 leaves by reference.
    let mut body = b"]q\x00h\x00a".to_vec();
    for _ in 0..40 {
        body.extend(b"q\x01(h\x01h\x01t");
    }
    pickle(&body).unwrap();
}

#[test]
fn tensors_lie_within_their_storage() {
    let tensor = |offset, shape: &[usize], strides: &[usize]| {
        let info = TensorInfo {
            dtype: Dtype::F32,
            storage: "0",
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        place(info, &Place { start: 100, end: 148, checksum: None })
    };
    assert_eq!(tensor(0, &[3, 4], &[4, 1]).unwrap().strides, None);
    assert_eq!(tensor(0, &[4, 3], &[1, 4]).unwrap().strides, Some(vec![1, 4]));
    assert_eq!(tensor(11, &[], &[]).unwrap().start, 144);
    assert_eq!(tensor(0, &[0, 7], &[7, 1]).unwrap().n_elements(), 0);
    for (offset, shape, strides) in [
        (1, &[3, 4][..], &[4, 1][..]),
        (12, &[], &[]),
        (usize::MAX, &[1], &[1]),
        (0, &[usize::MAX, 3], &[1, 1]),
        (0, &[2, 2], &[usize::MAX, 1]),
        (0, &[1 << 40, 4], &[0, 1]),
        (0, &[8, 8], &[1, 1]),
        (0, &[3, 4], &[1]),
    ] {
        assert!(tensor(offset, shape, strides).is_err(), "{offset} {shape:?} {strides:?}");
    }
}
