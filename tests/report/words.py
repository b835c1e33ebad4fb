"""The words of a page."""

from html.parser import HTMLParser


class Words(HTMLParser):
    """Collects the text of a page and checks that its tags nest."""

    VOID = {'meta', 'link', 'img', 'br', '!doctype'}

    def __init__(self, text):
        super().__init__()
        self.words, self.open, self.ids, self.targets = [], [], [], []
        self.feed(text)
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)
        assert {target for target in self.targets if target.startswith('#')} == {
            f'#{name}' for name in self.ids
        }

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert not [name for name in attrs if name.startswith('on')]
        self.ids += [attrs['id']] if 'id' in attrs else []
        self.targets += [attrs[name] for name in ('href', 'src') if name in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ['style']:
            self.words.append(data)


def read(path):
    """The words of a page, separated by single spaces."""
    return ' '.join(' '.join(Words(path.read_text()).words).split())
