//! Ruby from outside: what its front end makes of its syntax.

use hardn_oracle::{
    Mode::{self, Faithful, Snippet},
    Oracle,
};
use hardn_types::Language::Ruby;

/// A method of a controller; `params` is what the request brings.
fn controller(body: &str) -> String {
    format!("class ThingsController < ApplicationController\n  def show\n{body}\n  end\nend\n")
}

#[track_caller]
fn check(mode: Mode, expected: &[u16], code: &str) {
    super::check(Ruby, mode, expected, code);
}

#[test]
fn ruby_syntax_carries_values() {
    for (expected, body) in [
        // Calls with and without parentheses, in modifiers and conditions.
        (&[78][..], "system \"ls #{params[:x]}\""),
        (&[78], "system(\"ls \" + params[:x]) if ready?"),
        (&[78], "system(\"ls \" + params[:x]) unless params[:x].empty?"),
        (&[78], "`ls #{params[:x]}`"),
        (&[78], "%x(ls #{params[:x]})"),
        (&[78], "out = <<`END`\nls #{params[:x]}\nEND"),
        (&[78], "cmd = <<~END\n  ls #{params[:x]}\nEND\nsystem(cmd)"),
        // Variables: assigned, at once, in parts, only where nothing is.
        (&[78], "x = params[:x]\ny = \"ls \"\ny << x\nsystem(y)"),
        (&[78], "a, b = params[:a], 1\nsystem(\"ls \" + a)"),
        (&[], "a, b = params[:a], 1\nsystem(\"ls #{b}\")"),
        (&[78], "x ||= params[:x]\nsystem(\"ls #{x}\")"),
        (&[78], "@x = params[:x]\nsystem(\"ls #{@x}\")"),
        (&[78], "system(\"ls %s\" % params[:x])"),
        (&[78], "system(\"ls %s %s\" % [1, params[:x]])"),
        (&[], "system(\"ls %d\" % params[:x])"),
        (&[78], "system(format(\"ls %s\", params[:x]))"),
        (&[78], "system([\"ls\", params[:x]].join(\" \"))"),
        // Blocks see and change what is around them.
        (&[78], "params[:xs].each { |x| system(\"ls #{x}\") }"),
        (&[78], "params[:xs].each do |x|\n  system(\"ls #{x}\")\nend"),
        (&[78], "c = \"ls\"\n[1].each { |n| c += params[:x] }\nsystem(c)"),
        (&[78], "params[:xs].each { system(\"ls #{it}\") }"),
        (&[78], "run = ->(x) { system(\"ls #{params[:x]}\") }\nrun.call(1)"),
        // Values of statements.
        (&[78], "x = if ready? then params[:x] else \"a\" end\nsystem(\"ls #{x}\")"),
        (&[78], "x = case n when 1 then params[:x] end\nsystem(\"ls #{x}\")"),
        (&[78], "x = begin\n  params[:x]\nrescue\n  \"a\"\nend\nsystem(\"ls #{x}\")"),
        (&[78], "x = ready? ? params[:x] : \"a\"\nsystem(\"ls #{x}\")"),
        // What leaves early, what chooses.
        (&[], "x = params[:x]\nreturn unless %w[a b].include?(x)\nsystem(\"ls #{x}\")"),
        (&[], "x = params[:x]\nraise \"no\" unless x =~ /\\A[a-z]+\\z/\nsystem(\"ls #{x}\")"),
        (&[], "x = params[:x]\nhead 404 and return unless x == \"a\"\nsystem(\"ls #{x}\")"),
        (&[], "x = params[:x]\ncase x\nwhen \"a\", \"b\"\n  system(\"ls #{x}\")\nend"),
        (&[], "system(\"ls #{params[:x].to_i}\")"),
        (&[], "system(\"ls #{Shellwords.escape(params[:x])}\")"),
        (&[78], "work\nrescue Error => e\n  system(\"ls #{params[:x]}\")"),
        (&[78], "while n < 3\n  n += 1\n  next if n == 2\n  system(\"ls #{params[:x]}\")\nend"),
        // Keywords, hashes, symbols.
        (&[295], "HTTParty.get(\"https://example.org\", { verify: false })"),
        (&[295], "HTTParty.get(\"https://example.org\", :verify => false)"),
        (&[], "User.where(:name => params[:x])"),
        (&[89], "User.where(\"name = '#{params[:x]}'\")"),
    ] {
        check(Faithful, expected, &controller(body));
    }
}

#[test]
fn ruby_methods_of_a_file_know_each_other() {
    check(
        Faithful,
        &[78],
        "class A < ApplicationController\n  def show\n    system(\"ls #{name}\")\n  end\n  private def name\n    params[:name]\n  end\nend\n",
    );
    check(
        Faithful,
        &[78],
        "class A < ApplicationController\n  attr_reader :name\n  def initialize\n    @name = params[:name]\n  end\n  def show\n    system(\"ls #{name}\")\n  end\nend\n",
    );
    check(
        Snippet,
        &[],
        "def clean(x)\n  x.shellescape\nend\ndef show(x)\n  system(\"ls #{clean(x)}\")\nend\n",
    );
    check(Snippet, &[78], "def show(x)\n  y = x.strip\n  system(\"ls #{y}\")\nend\n");
    // A parameter named like a source is none.
    check(Faithful, &[], "def show(params)\n  User.where(\"a = #{params[:x]}\")\nend\n");
}

#[test]
fn broken_ruby_neither_panics_nor_hides_the_rest() {
    let code = "def f(x)\n  system(\"ls #{x}\")\nend\n\ndef g(\n  return ((\n";
    assert!(super::classes(code, Ruby, Snippet).contains(&78));
    let deep = format!("x = {}1{}\n", "(".repeat(5000), ")".repeat(5000));
    let blocks = format!("{}{}", "f { |x| g(a: { b: ".repeat(3000), "1 }) }".repeat(3000));
    let ifs = format!("{}{}", "if x\n".repeat(3000), "end\n".repeat(3000));
    for code in [deep.as_str(), &blocks, &ifs, "\u{feff}\r\n\0", "", "<<A\n", "f(<<A, <<B)\nx\nA\n"]
    {
        Oracle::shared().analyse(code, Ruby, Snippet);
    }
    let code = "class É < B\n  def f(ü, k: 1, *r, **o, &b)\n    x = \"a#{ü} #{r[0]}\" =~ /a#{k}/i ? %w[a b] : :\"c#{o}\"\n    g(<<~A, y: { z: -> { it } }) do |(p, q), w|\n      #{x}\n    A\n      next p rescue nil\n    end\n  end\nend\n";
    for (end, _) in code.char_indices() {
        Oracle::shared().analyse(&code[..end], Ruby, Snippet);
    }
}
