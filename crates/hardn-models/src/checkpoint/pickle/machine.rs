//! The pickle machine, as far as dictionaries of tensors need it.
//!
//! Objects lie in one list and refer to each other by number: a pickle that refers to itself, or to one object a
//! million times, costs no more than its own length.

use std::collections::HashMap;

use safetensors::Dtype;

use super::{TensorInfo, globals::Global};

/// More objects than this are no checkpoint; one with 100,000 tensors has some ten objects for each.
const MAX_OBJECTS: usize = 1 << 24;

/// An object. Parts are given by their numbers.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A number beyond 64 bits, as its little-endian bytes.
    Long(&'a [u8]),
    Text(&'a str),
    Tuple(Vec<usize>),
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    Global(Global),
    Storage {
        dtype: Option<Dtype>,
        name: &'a str,
        offset: usize,
    },
    Tensor(TensorInfo<'a>),
    /// A number or bytes that no tensor needs.
    Other,
}

/// A pickle being read.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Value<'a>>,
    stack: Vec<usize>,
    /// Lengths of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, usize>,
}

impl<'a> Machine<'a> {
    /// Runs one pickle to its end; the result is the number of the object it leaves and the bytes it took.
    ///
    /// # Errors
    /// A pickle that is cut, malformed, or does anything but describe tensors.
    pub(super) fn run(bytes: &'a [u8]) -> Result<(Self, usize, usize), String> {
        let mut machine = Self {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let at = machine.at;
            match machine.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(message) => return Err(format!("pickle, byte {at}: {message}")),
            }
        }
        let root = machine.pop()?;
        let taken = machine.at;
        Ok((machine, root, taken))
    }

    pub(super) fn value(&self, number: usize) -> &Value<'a> {
        &self.objects[number]
    }

    /// Carries out one instruction; `false` at the end.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.array()?;
        match code {
            b'.' => return Ok(false),
            0x80 => {
                let [version] = self.array()?;
                if version > 5 {
                    return Err(format!("protocol {version} is not known"));
                }
            }
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            // `b` sets attributes of a dictionary or tensor: of no use here.
            b'0' | b'b' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => {
                let [value] = self.array()?;
                self.push(Value::Int(i64::from(value)))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(i64::from(value)))?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(i64::from(value)))?;
            }
            0x8a => {
                let [n] = self.array()?;
                self.long(usize::from(n))?;
            }
            0x8b => {
                let n = self.length4()?;
                self.long(n)?;
            }
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other)?;
            }
            // `T` and `U` are strings of Python 2, which old checkpoints use for keys.
            b'X' | b'T' => {
                let n = self.length4()?;
                self.text(n)?;
            }
            0x8c | b'U' => {
                let [n] = self.array()?;
                self.text(usize::from(n))?;
            }
            0x8d => {
                let n = self.length8()?;
                self.text(n)?;
            }
            b'C' => {
                let [n] = self.array()?;
                self.other(usize::from(n))?;
            }
            b'B' => {
                let n = self.length4()?;
                self.other(n)?;
            }
            0x8e => {
                let n = self.length8()?;
                self.other(n)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            b'd' => {
                self.push_below_mark(Value::Dict(Vec::new()))?;
                self.set_items()?;
            }
            0x85..=0x87 => {
                let n = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(n).ok_or("the stack is empty")?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => self.set_items()?,
            b'q' => {
                let [slot] = self.array()?;
                let top = self.top()?;
                self.memo.insert(u64::from(slot), top);
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                let top = self.top()?;
                self.memo.insert(u64::from(slot), top);
            }
            0x94 => {
                let top = self.top()?;
                self.memo.insert(self.memo.len() as u64, top);
            }
            b'h' => {
                let [slot] = self.array()?;
                self.recall(u64::from(slot))?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(u64::from(slot))?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global(Global::find(module, name)?))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.value(module), self.value(name)) {
                    (Value::Text(module), Value::Text(name)) => {
                        let global = Global::find(module, name)?;
                        self.push(Value::Global(global))?;
                    }
                    _ => return Err("a name is not a text".to_owned()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let result = self.call(callable, arguments)?;
                self.stack.push(result);
            }
            code => return Err(format!("instruction {code:#04x} is not one a checkpoint needs")),
        }
        Ok(true)
    }

    /// What a call of a known name gives.
    fn call(&mut self, callable: usize, arguments: usize) -> Result<usize, String> {
        let Value::Global(mut global) = *self.value(callable) else {
            return Err("something that is not a name is called".to_owned());
        };
        let mut arguments = self.items(arguments)?.to_vec();
        if global == Global::FromType {
            let (function, inner) = (argument(&arguments, 0)?, argument(&arguments, 2)?);
            match *self.value(function) {
                Value::Global(function) if function != Global::FromType => global = function,
                _ => return Err("a tensor is rebuilt by something that is not known".to_owned()),
            }
            arguments = self.items(inner)?.to_vec();
        }
        let value = match global {
            Global::OrderedDict => Value::Dict(Vec::new()),
            Global::Rebuild => Value::Tensor(self.tensor(&arguments, None)?),
            Global::RebuildTyped => match *self.value(argument(&arguments, 6)?) {
                Value::Global(Global::Dtype(dtype)) => {
                    Value::Tensor(self.tensor(&arguments, Some(dtype))?)
                }
                _ => return Err("a tensor has no known type".to_owned()),
            },
            Global::Parameter | Global::Size => return argument(&arguments, 0),
            Global::Other => Value::Other,
            Global::FromType | Global::Storage(_) | Global::Dtype(_) => {
                return Err("a type is called like a function".to_owned());
            }
        };
        self.add(value)
    }

    fn tensor(&self, arguments: &[usize], dtype: Option<Dtype>) -> Result<TensorInfo<'a>, String> {
        let Value::Storage { dtype: own, name, offset } = *self.value(argument(arguments, 0)?)
        else {
            return Err("a tensor has no storage".to_owned());
        };
        let dtype = dtype.or(own).ok_or("a tensor's storage has no type")?;
        let within = self.size(argument(arguments, 1)?)?;
        Ok(TensorInfo {
            dtype,
            storage: name,
            offset: within.checked_add(offset).ok_or("a tensor lies beyond its data")?,
            shape: self.sizes(argument(arguments, 2)?)?,
            strides: self.sizes(argument(arguments, 3)?)?,
        })
    }

    /// `('storage', type, name, device, elements)`; old files add `None` or `(name, offset, elements)` of a view.
    fn storage(&self, id: usize) -> Result<Value<'a>, String> {
        let id = self.items(id)?;
        let part = |i| argument(id, i).map(|number| self.value(number));
        match (part(0)?, part(1)?, part(2)?) {
            (Value::Text("storage"), Value::Global(Global::Storage(dtype)), Value::Text(name)) => {
                let offset = match id.get(5).map(|view| self.value(*view)) {
                    Some(Value::Tuple(view)) => self.size(argument(view, 1)?)?,
                    _ => 0,
                };
                Ok(Value::Storage { dtype: *dtype, name, offset })
            }
            _ => Err("a tensor's storage is described in a way that is not known".to_owned()),
        }
    }

    fn items(&self, number: usize) -> Result<&[usize], String> {
        match self.value(number) {
            Value::Tuple(items) | Value::List(items) => Ok(items),
            _ => Err("a tuple is missing".to_owned()),
        }
    }

    fn sizes(&self, number: usize) -> Result<Vec<usize>, String> {
        self.items(number)?.iter().map(|item| self.size(*item)).collect()
    }

    fn size(&self, number: usize) -> Result<usize, String> {
        match self.value(number) {
            Value::Int(value) => usize::try_from(*value).map_err(|_| format!("{value} is no size")),
            _ => Err("a size is missing".to_owned()),
        }
    }

    fn add(&mut self, value: Value<'a>) -> Result<usize, String> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err("there are more objects than any checkpoint has".to_owned());
        }
        self.objects.push(value);
        Ok(self.objects.len() - 1)
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        let number = self.add(value)?;
        self.stack.push(number);
        Ok(())
    }

    fn push_below_mark(&mut self, value: Value<'a>) -> Result<(), String> {
        let number = self.add(value)?;
        let mark = self.marks.last_mut().ok_or("a mark is missing")?;
        self.stack.insert(*mark, number);
        *mark += 1;
        Ok(())
    }

    /// The top of the stack, which lies above the last mark.
    fn top(&self) -> Result<usize, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .get(floor..)
            .and_then(<[usize]>::last)
            .copied()
            .ok_or("the stack is empty".into())
    }

    fn pop(&mut self) -> Result<usize, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn recall(&mut self, slot: u64) -> Result<(), String> {
        let number =
            *self.memo.get(&slot).ok_or_else(|| format!("nothing was stored as {slot}"))?;
        self.stack.push(number);
        Ok(())
    }

    fn extend(&mut self, items: Vec<usize>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.objects[list] {
            Value::List(list) => list.extend(items),
            _ => return Err("items are put into something that is not a list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self) -> Result<(), String> {
        let items = self.pop_mark()?;
        self.insert(&items)
    }

    fn insert(&mut self, items: &[usize]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        let dict = self.top()?;
        match &mut self.objects[dict] {
            Value::Dict(entries) if rest.is_empty() => {
                entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            _ => Err("entries are put into something that is not a dictionary".to_owned()),
        }
    }

    fn long(&mut self, n: usize) -> Result<(), String> {
        let bytes = self.take(n)?;
        if n > 8 {
            return self.push(Value::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        value[..n].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(value)))
    }

    fn text(&mut self, n: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| "a text is not UTF-8")?;
        self.push(Value::Text(text))
    }

    fn other(&mut self, n: usize) -> Result<(), String> {
        self.take(n)?;
        self.push(Value::Other)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let n =
            rest.iter().take(1000).position(|byte| *byte == b'\n').ok_or("a name has no end")?;
        let line = std::str::from_utf8(self.take(n)?).map_err(|_| "a name is not UTF-8")?;
        self.at += 1;
        Ok(line.strip_suffix('\r').unwrap_or(line))
    }

    fn length4(&mut self) -> Result<usize, String> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, String> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| CUT.to_owned())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| CUT.to_owned())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let bytes = self.bytes[self.at..].get(..n).ok_or(CUT)?;
        self.at += n;
        Ok(bytes)
    }
}

const CUT: &str = "the file ends too early";

fn argument(arguments: &[usize], i: usize) -> Result<usize, String> {
    arguments.get(i).copied().ok_or_else(|| "an argument is missing".to_owned())
}
